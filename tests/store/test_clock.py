"""A server whose clock steps: fences still grow, nobody is granted a floor over a voice, the queue keeps its order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.ids import AgentId
from coordination.ports import Silenced
from coordination.store import Store
from tests.store.clocks import shift_the_clock_of_scripts, step

HOUR = timedelta(hours=1)
SOON = 8.0


class Witness:
    """A silencer that confirms, and remembers whom it was asked to silence."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def silence(self, agent: AgentId) -> Silenced:
        self.asked.append(agent)
        return Silenced.REMOVED


@pytest.fixture(autouse=True)
async def clock(monkeypatch: pytest.MonkeyPatch, store: Store) -> AsyncIterator[None]:
    shift_the_clock_of_scripts(monkeypatch)
    yield
    await store.command("DEL", "test:clock")


@pytest.mark.parametrize("by", [HOUR, -HOUR])
async def test_a_holder_keeps_its_floor_and_the_next_fence_is_higher(
    coordinator: Coordinator, store: Store, by: timedelta
) -> None:
    floor = coordinator.room("call").floor
    first = await floor.request("a")
    await step(store, by)
    async with asyncio.timeout(SOON):  # the next renewal dates the lease by the new clock
        while not timedelta(0) < ((await floor.state()).expires_in or HOUR) <= timedelta(seconds=2):
            await asyncio.sleep(0.02)

    assert first.held
    state = await floor.state()
    assert (state.holder, state.fence) == ("a", first.fence)
    await first.release()
    assert (await floor.request("b")).fence > first.fence


async def test_fences_grow_for_a_process_that_saw_none_of_them(
    coordinator: Coordinator, other: Coordinator, store: Store
) -> None:
    first = await coordinator.room("call").floor.request("a")
    await first.release()
    await step(store, -HOUR)

    assert (await other.room("call").floor.request("b")).fence > first.fence


async def test_a_step_forward_frees_no_floor_before_the_holder_is_silent(valkey: EmbeddedValkey, store: Store) -> None:
    witness = Witness()
    async with Coordinator.open(valkey.url) as here, Coordinator.open(valkey.url) as there:
        holder = await here.room("call", silencer=Witness()).floor.request("a")
        waiting = asyncio.create_task(there.room("call", silencer=witness).floor.request("b", timeout=None))
        while not (await there.room("call").floor.state()).queue:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.1)  # the waiter's connection has settled: from here on it may condemn
        await step(store, HOUR)
        # Whoever looks finds the lease expired, unless its holder has just renewed it under the new clock.
        assert await there.room("call").floor.try_request("c") is None
        await asyncio.wait([waiting], timeout=1.0)
        if waiting.done():
            assert witness.asked == ["a"], "the floor moved while the old holder could be heard"
            await asyncio.wait_for(holder.lost.wait(), SOON)
        else:
            assert holder.held
            await holder.release()
        heir = await asyncio.wait_for(waiting, SOON)

        assert heir.fence > holder.fence


@pytest.mark.parametrize("by", [HOUR, -HOUR])
async def test_those_who_wait_are_served_in_order_and_hold_what_they_get(
    coordinator: Coordinator, other: Coordinator, store: Store, by: timedelta
) -> None:
    """A pushed grant is dated by the server's clock, measured from a reply that was given by the old one."""
    here, there = coordinator.room("call").floor, other.room("call").floor
    first = await here.request("a")
    served: list[str] = []

    async def wait(name: str) -> None:
        async with there.hold(name, timeout=None) as lease:
            assert lease.held
            served.append(name)
            await asyncio.sleep(0.4)  # longer than the provisional window
            assert lease.held

    waits = [asyncio.create_task(wait("b"))]
    while len((await here.state()).queue) < 1:
        await asyncio.sleep(0.01)
    await step(store, by)
    waits.append(asyncio.create_task(wait("c")))
    # A step forward ends the holder's lease, and outside of LiveKit that alone passes it on.
    while len((await here.state()).queue) < 2 and not served:
        await asyncio.sleep(0.01)
    await first.release()

    await asyncio.wait_for(asyncio.gather(*waits), SOON)
    assert served == ["b", "c"]
