"""The floor as a state machine: whatever is asked, given back, cancelled or wiped, in whatever order.

The model is a sorted list of requests. After each step the server and both processes must agree with it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from coordination.coordinator import Coordinator, Room
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import StaleFence
from coordination.ids import AgentId
from coordination.leases.lease import Lease
from coordination.settings import CoordinatorSettings

AGREED_WITHIN = 3.0


@dataclass(eq=False)
class Request:
    """One request of the model, and the task that makes it."""

    agent: str
    priority: int
    order: int
    process: int
    task: asyncio.Task[Lease] | None = None
    fence: int | None = field(default=None)


class FloorMachine(RuleBasedStateMachine):
    """Two processes, one floor."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.orders = itertools.count()
        self.holder: Request | None = None
        self.waiting: list[Request] = []
        self.highest = 0
        self.past: list[Lease] = []
        self.rooms: list[Room] = []
        self.coordinators: list[Coordinator] = []

    def run(self, work):  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        async def connect() -> None:
            options = CoordinatorSettings(prefix=f"machine-{id(self)}", floor_ttl=timedelta(seconds=30))
            for _ in range(2):
                coordinator = await Coordinator.open(self.url, settings=options)
                self.coordinators.append(coordinator)
                self.rooms.append(coordinator.room("call"))

        self.run(connect())

    @precondition(lambda self: len(self.waiting) < 6)
    @rule(priority=st.integers(-1, 1), process=st.integers(0, 1))
    def request(self, priority: int, process: int) -> None:
        order = next(self.orders)
        asked = Request(f"agent-{order}", priority, order, process)

        async def ask() -> None:
            floor = self.rooms[process].floor
            asked.task = asyncio.create_task(floor.request(asked.agent, priority=priority, timeout=None))

        self.run(ask())
        self.waiting.append(asked)
        self.waiting.sort(key=lambda each: (-each.priority, each.order))
        if self.holder is None:
            self.holder = self.waiting.pop(0)
        self.settle()

    @precondition(lambda self: self.holder is not None)
    @rule()
    def release(self) -> None:
        assert self.holder is not None
        assert self.holder.task is not None
        lease = self.holder.task.result()
        assert self.run(lease.release())
        self.promote()

    @precondition(lambda self: bool(self.waiting))
    @rule(place=st.integers(0, 5))
    def cancel(self, place: int) -> None:
        leaving = self.waiting.pop(place % len(self.waiting))
        assert leaving.task is not None
        leaving.task.cancel()
        self.run(asyncio.wait([leaving.task]))
        assert leaving.task.cancelled()
        self.settle()

    @precondition(lambda self: self.holder is not None)
    @rule()
    def repeat(self) -> None:
        """The holder's request comes once more, as after a lost reply: the same grant, the same fence."""
        lease = self.lease_of_holder()
        asked = lease.request
        floor = self.rooms[self.holder.process if self.holder else 0].floor
        again = self.run(floor.request(asked.agent, priority=asked.priority, request_id=asked.id))
        assert (again, again.fence) == (lease, lease.fence)

    @precondition(lambda self: self.holder is not None)
    @rule()
    def write(self) -> None:
        """Who holds the floor may write under its fence; who held it before may not."""
        lease = self.lease_of_holder()
        self.run(self.rooms[0].context.update({"by": lease.agent}, lease=lease))
        for old in self.past:
            with pytest.raises(StaleFence):
                self.run(self.rooms[1].context.update({"by": old.agent}, lease=old))
        assert self.run(self.rooms[1].context.read()).data == {"by": lease.agent}

    def lease_of_holder(self) -> Lease:
        assert self.holder is not None
        assert self.holder.task is not None
        return self.holder.task.result()

    @precondition(lambda self: self.holder is not None)
    @rule()
    def revoke(self) -> None:
        assert self.run(self.rooms[0].floor.revoke(reason="test"))
        self.promote()

    @precondition(lambda self: self.holder is not None)
    @rule()
    def wipe(self) -> None:
        """The server comes back empty: the holder keeps the floor, and those who wait are queued again."""
        assert self.holder is not None
        assert self.holder.task is not None
        lease = self.holder.task.result()

        async def wiped() -> None:
            engine = self.coordinators[0]._engine
            await engine.store.command("FLUSHALL")
            # What a renewal and a look at the queue do in their time, now.
            await lease._keeper.renew(lease)
            for coordinator in self.coordinators:
                for room in list(coordinator._engine._rooms.values()):
                    await room.repeat_all()

        self.run(wiped())
        # All who wait arrive anew, in an order that nobody knows any more: the server's is adopted.
        state = self.run(self.rooms[0].floor.state())
        place = {waiter.agent: number for number, waiter in enumerate(state.queue)}
        assert sorted(place) == sorted(each.agent for each in self.waiting)
        self.waiting.sort(key=lambda each: place[AgentId(each.agent)])
        for each in self.waiting:
            each.order = next(self.orders)
        assert [each.priority for each in self.waiting] == sorted((e.priority for e in self.waiting), reverse=True)
        self.settle()

    def promote(self) -> None:
        self.past = [*self.past[-2:], self.lease_of_holder()]
        self.holder = self.waiting.pop(0) if self.waiting else None
        self.settle()

    def settle(self) -> None:
        """Waits until the server shows what the model says; fails if it never does."""

        async def agree() -> None:
            wanted = (self.holder.agent if self.holder else None, [each.agent for each in self.waiting])
            shown = None
            try:
                async with asyncio.timeout(AGREED_WITHIN):
                    while shown != wanted or (self.holder and self.holder.task and not self.holder.task.done()):
                        await asyncio.sleep(0.001)
                        state = await self.rooms[0].floor.state()
                        shown = (state.holder, [each.agent for each in state.queue])
            except TimeoutError:
                raise AssertionError(f"the server shows {shown}, the model {wanted}") from None

        self.run(agree())

    @invariant()
    def only_the_holder_holds_and_fences_grow(self) -> None:
        if not self.coordinators:
            return
        held = [lease for each in self.coordinators for lease in each._engine.keeper.held.values()]
        assert [lease.agent for lease in held] == ([self.holder.agent] if self.holder else [])
        if self.holder is not None and self.holder.fence is None:
            assert held[0].fence > self.highest
            self.holder.fence = self.highest = held[0].fence
        assert not any(each.task.done() for each in self.waiting if each.task)

    def teardown(self) -> None:
        async def close() -> None:
            tasks = [each.task for each in self.waiting if each.task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for coordinator in self.coordinators:
                await coordinator.close()

        self.run(close())
        self.runner.close()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as valkey:
        yield valkey


def test_the_floor_agrees_with_its_model(server: EmbeddedValkey) -> None:
    FloorMachine.url = server.url
    bounds = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(FloorMachine, settings=bounds)  # pyright: ignore[reportUnknownArgumentType]
