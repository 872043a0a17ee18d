"""The floor against a real server: grants, order, expiry, and what must never happen."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import FloorTimeout, HandoffInProgress, HandoffRefused, InvalidName, LeaseLost, StaleFence
from coordination.handoff.context import HandoffContext
from coordination.handoff.protocol import HandoffState
from coordination.ids import AgentId
from coordination.leases.lease import LossReason
from coordination.ports import Silenced
from coordination.settings import CoordinatorSettings
from coordination.store import Script, Store

SOON = 5.0
MOMENT = timedelta(milliseconds=50)


class Witness:
    """A silencer that remembers whom it was asked to silence."""

    def __init__(self, outcome: Silenced = Silenced.REMOVED) -> None:
        self.outcome = outcome
        self.asked: list[str] = []

    async def silence(self, agent: AgentId) -> Silenced:
        self.asked.append(agent)
        return self.outcome


def die(coordinator: Coordinator) -> None:
    """As if the process had been killed: nothing is released, nor renewed, not even by what is on its way."""
    keeper = coordinator._engine.keeper
    keeper.held.clear()
    for ends in (*keeper._timers.values(), *keeper._tasks):
        ends.cancel()


async def test_a_released_floor_goes_to_the_next_in_order_of_arrival(coordinator: Coordinator, other: Coordinator):
    room, far = coordinator.room("call"), other.room("call")
    first = await room.floor.request("a")
    waits: list[asyncio.Task[None]] = []
    served: list[str] = []

    async def wait(name: str) -> None:
        async with far.floor.hold(name):
            served.append(name)

    for name in ("b", "c", "d"):
        waits.append(asyncio.create_task(wait(name)))
        while len((await room.floor.state()).queue) < len(waits):
            await asyncio.sleep(0.002)
    await first.release()
    await asyncio.wait_for(asyncio.gather(*waits), SOON)

    assert served == ["b", "c", "d"]
    assert (await room.floor.state()).holder is None


async def test_a_larger_priority_goes_first(coordinator: Coordinator):
    room = coordinator.room("call")
    first = await room.floor.request("a")
    low = asyncio.create_task(room.floor.request("low", priority=0))
    while not (await room.floor.state()).queue:
        await asyncio.sleep(0.002)
    high = asyncio.create_task(room.floor.request("high", priority=9))
    while len((await room.floor.state()).queue) < 2:
        await asyncio.sleep(0.002)
    await first.release()

    won = await asyncio.wait_for(high, SOON)
    assert not low.done()
    await won.release()
    assert (await asyncio.wait_for(low, SOON)).fence > won.fence


async def test_a_wait_that_times_out_leaves_nothing_behind(coordinator: Coordinator):
    room = coordinator.room("call")
    held = await room.floor.request("a")

    with pytest.raises(FloorTimeout):
        await room.floor.request("b", timeout=MOMENT)
    await asyncio.sleep(0.05)

    state = await room.floor.state()
    assert (state.holder, state.queue) == ("a", ())
    await held.release()
    assert (await room.floor.state()).holder is None


async def test_a_hundred_cancelled_requests_leave_no_lease_and_no_entry(coordinator: Coordinator):
    room = coordinator.room("call")
    for turn in range(100):
        task = asyncio.create_task(room.floor.request(f"a{turn}"))
        for _ in range(turn % 12):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            await task.result().release()
    await asyncio.sleep(0.1)

    state = await room.floor.state()
    assert (state.holder, state.queue) == (None, ())


async def test_a_repeated_request_returns_the_same_grant(coordinator: Coordinator):
    room = coordinator.room("call")
    first = await room.floor.request("a", request_id="r1")
    again = await room.floor.request("a", request_id="r1")

    assert again.fence == first.fence


async def test_a_repetition_that_grant_and_release_overtake_leaves_nothing_behind(
    coordinator: Coordinator, other: Coordinator, monkeypatch: pytest.MonkeyPatch
):
    """Seen after a failover: the subscription was back before the link, so the repetition came last and was granted."""
    held = await coordinator.room("call").floor.request("a")
    waiting = asyncio.create_task(other.room("call").floor.request("b"))
    while not (await coordinator.room("call").floor.state()).queue:
        await asyncio.sleep(0.002)
    gate, run = asyncio.Event(), other._store.run

    async def late(script: Script, *args: Any, **options: Any) -> Any:
        if script.name == "lease/request":
            await gate.wait()
        return await run(script, *args, **options)

    monkeypatch.setattr(other._store, "run", late)
    other._engine._repeat_all()
    await asyncio.sleep(0.01)
    await held.release()
    await (await asyncio.wait_for(waiting, SOON)).release()
    gate.set()
    await asyncio.sleep(0.1)

    state = await coordinator.room("call").floor.state()
    assert (state.holder, state.queue) == (None, ())


async def test_fences_grow_when_the_server_comes_back_empty(coordinator: Coordinator, store: Store):
    room = coordinator.room("call")
    lease = await room.floor.request("a")
    fence = lease.fence
    await lease.release()
    await store.command("FLUSHALL")

    assert (await room.floor.request("b")).fence > fence


async def test_a_holder_keeps_its_floor_over_an_empty_return(
    coordinator: Coordinator, other: Coordinator, store: Store
):
    lease = await coordinator.room("call").floor.request("a")
    await store.command("FLUSHALL")
    far = other.room("call")
    far.floor.witness(lease.fence, "a")
    await asyncio.sleep(1.0)

    assert lease.held
    assert (await far.floor.state()).fence == lease.fence


async def test_whoever_looked_at_the_floor_leaves_it_to_its_holder_when_the_server_has_forgotten_it(
    coordinator: Coordinator, other: Coordinator, store: Store
):
    """A standby that had joined after the last grant took the floor of a live holder half a second after a wipe."""
    lease = await coordinator.room("call").floor.request("a")
    far = other.room("call")
    await far.floor.state()
    await store.command("FLUSHALL")

    assert await far.floor.try_request("b") is None
    await asyncio.sleep(1.0)

    assert lease.held
    assert (await far.floor.state()).holder == "a"


async def test_an_expired_holder_is_silenced_before_the_floor_moves(valkey: EmbeddedValkey, store: Store):
    settings = CoordinatorSettings(floor_ttl=timedelta(milliseconds=300))
    witness = Witness()
    dying = await Coordinator.open(valkey.url, settings=settings)
    await dying.room("call", silencer=Witness()).floor.request("a")
    async with Coordinator.open(valkey.url, settings=settings) as heir:
        floor = heir.room("call", silencer=witness).floor
        waiting = asyncio.create_task(floor.request("b"))
        await asyncio.sleep(0.1)
        die(dying)

        lease = await asyncio.wait_for(waiting, SOON)

        assert witness.asked == ["a"]
        await lease.release()
    await dying.close()


async def test_nothing_is_granted_while_the_media_server_does_not_answer(valkey: EmbeddedValkey, store: Store):
    settings = CoordinatorSettings(floor_ttl=timedelta(milliseconds=300))
    witness = Witness(Silenced.UNREACHABLE)
    dying = await Coordinator.open(valkey.url, settings=settings)
    await dying.room("call", silencer=Witness()).floor.request("a")
    die(dying)
    async with Coordinator.open(valkey.url, settings=settings) as heir:
        floor = heir.room("call", silencer=witness).floor
        with pytest.raises(FloorTimeout):
            await floor.request("b", timeout=timedelta(seconds=2))

        assert witness.asked
        witness.outcome = Silenced.ABSENT
        assert await floor.request("b")
    await dying.close()


async def test_the_body_of_a_hold_is_cancelled_when_the_floor_is_revoked(coordinator: Coordinator, other: Coordinator):
    room = coordinator.room("call")

    async def body() -> None:
        async with room.floor.hold("a"):
            await other.room("call").floor.revoke(reason="supervisor")
            await asyncio.sleep(SOON)

    with pytest.raises(LeaseLost, match="revoked"):
        await body()


async def test_a_write_with_an_old_fence_is_refused(coordinator: Coordinator):
    room = coordinator.room("call")
    old = await room.floor.request("a")
    await room.context.update({"invoice": 42}, lease=old)
    await old.release()
    await room.floor.request("b")

    with pytest.raises(StaleFence):
        await room.context.update({"invoice": 43}, lease=old)
    assert (await room.context.read()).data == {"invoice": 42}


async def test_a_handoff_moves_the_floor_to_the_agent_that_is_ready(coordinator: Coordinator, other: Coordinator):
    here, there = coordinator.room("call"), other.room("call")
    old = await here.floor.request("a", role="reception")
    context = HandoffContext(summary="wants a refund", facts={"invoice": 42})
    offer = await here.handoffs.offer(old, to_role="billing", context=context, deadline=timedelta(seconds=5))
    with pytest.raises(HandoffInProgress):
        await here.handoffs.offer(old, to_role="sales", context=context, deadline=timedelta(seconds=5))
    claimed = await there.handoffs.claim(offer.id, agent="b")
    with pytest.raises(HandoffRefused):
        await there.handoffs.claim(offer.id, agent="c")
    request = await there.handoffs.ready(offer.id, agent="b")

    fence = await here.handoffs.commit(old, offer.id)
    lease = await there.floor.expect_grant("b", role="billing", request_id=request)

    assert claimed.context == context
    assert lease.fence == fence > old.fence
    assert old.reason is LossReason.MOVED
    state = await here.floor.state()
    assert (state.holder, state.role) == ("b", "billing")
    current = await here.handoffs.current()
    assert current is not None
    assert current.state is HandoffState.COMMITTED


async def test_a_commit_to_an_agent_that_is_gone_leaves_the_floor_where_it_was(valkey: EmbeddedValkey, store: Store):
    async with Coordinator.open(valkey.url) as here:
        room = here.room("call")
        old = await room.floor.request("a")
        offer = await room.handoffs.offer(old, to_role="b", context=HandoffContext(), deadline=timedelta(seconds=5))
        async with Coordinator.open(valkey.url) as there:
            await there.room("call").handoffs.claim(offer.id, agent="b")
            await there.room("call").handoffs.ready(offer.id, agent="b")

        with pytest.raises(HandoffRefused):
            await room.handoffs.commit(old, offer.id)
        assert old.held
        assert (await room.floor.state()).holder == "a"


async def test_locks_exclude_and_their_fences_grow(coordinator: Coordinator, other: Coordinator):
    async with coordinator.lock("invoice:42", ttl=timedelta(seconds=10), timeout=timedelta(seconds=2)) as lease:
        with pytest.raises(TimeoutError):
            await other.acquire_lock("invoice:42", timeout=MOMENT)
    async with other.lock("invoice:42") as later:
        assert later.fence > lease.fence


@pytest.mark.parametrize("name", ["", "r" * 300, "a{b}"])
async def test_a_name_that_cannot_be_one_is_refused(coordinator: Coordinator, name: str):
    with pytest.raises(InvalidName):
        coordinator.room(name)
