"""Late replies, unanswered commits and older servers: what must not open a gate, nor cost a holder its floor."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import StoreUnavailable
from coordination.handoff.context import HandoffContext
from coordination.ids import AgentId
from coordination.leases.lease import Lease
from coordination.ports import Silenced
from coordination.settings import CoordinatorSettings
from coordination.store import Store

SOON = 5.0
SHORT = CoordinatorSettings(floor_ttl=timedelta(milliseconds=300))


class Witness:
    """A silencer that remembers whom it was asked to silence."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def silence(self, agent: AgentId) -> Silenced:
        self.asked.append(agent)
        return Silenced.REMOVED


async def _free(coordinator: Coordinator) -> None:
    async with asyncio.timeout(SOON):
        while (await coordinator.room("call").floor.state()).holder is not None:
            await asyncio.sleep(0.01)


def _forget(coordinator: Coordinator) -> None:
    """As if the process knew nothing of its leases any more, and could not tell the server."""
    keeper = coordinator._engine.keeper
    for timer in keeper._timers.values():
        timer.cancel()
    keeper._timers.clear()
    keeper.held.clear()


async def test_a_grant_that_is_read_after_its_time_opens_nothing_and_is_given_back(
    valkey: EmbeddedValkey, store: Store, monkeypatch: pytest.MonkeyPatch
):
    """An agent was stopped between request and reply: under policy `keep` it spoke on a lease that had run out."""
    async with Coordinator.open(valkey.url, settings=SHORT) as sleeper:
        floor = sleeper.room("call", silencer=Witness()).floor
        engine = sleeper._engine
        run = engine.store.run

        async def stopped(*args: Any, **options: Any) -> Any:
            reply = await run(*args, **options)
            monkeypatch.undo()
            time.sleep(0.5)  # noqa: ASYNC251  # the whole process is stopped, as by SIGSTOP
            return reply

        monkeypatch.setattr(engine.store, "run", stopped)

        lease = await floor.request("a")

        assert not lease.held
        await asyncio.wait_for(lease.lost.wait(), SOON)
        await _free(sleeper)


async def test_a_renewal_that_is_read_after_its_time_vouches_for_nothing(
    valkey: EmbeddedValkey, store: Store, monkeypatch: pytest.MonkeyPatch
):
    """A pushed grant was confirmed by a reply from before a stop: the agent spoke beside the next holder."""
    async with Coordinator.open(valkey.url, settings=SHORT) as sleeper:
        lease = await sleeper.room("call", silencer=Witness()).floor.request("a")
        lease.strict = True  # as a pushed grant is until it is confirmed
        engine = sleeper._engine
        run, held = engine.store.run, list[bool]()

        async def stopped(*args: Any, **options: Any) -> Any:
            held.append(lease.held)
            reply = await run(*args, **options)
            if len(held) == 1:
                time.sleep(0.5)  # noqa: ASYNC251  # the whole process is stopped, as by SIGSTOP
            return reply

        monkeypatch.setattr(engine.store, "run", stopped)

        await engine.keeper.renew(lease)

        assert held[:2] == [True, False], "held when the server is asked first, and again"


async def test_a_reply_older_than_the_doubt_does_not_end_it(coordinator: Coordinator):
    """A renewal was under way when a higher fence was announced, and its reply opened the gate again."""
    floor = coordinator.room("call", silencer=Witness()).floor
    lease = await floor.request("a")
    renewing = asyncio.create_task(coordinator._engine.keeper.renew(lease))
    await asyncio.sleep(0)
    announced = lease.fence + 1_000

    floor.witness(announced, "b")

    async with asyncio.timeout(SOON):
        while not lease.held:
            await asyncio.sleep(0)
    assert lease.fence > announced
    await renewing


async def test_an_agent_is_not_silenced_for_what_is_left_of_its_own_lease(valkey: EmbeddedValkey, store: Store):
    """A release was lost with the connection; when the agent asked again, it removed itself from its call."""
    silencer = Witness()
    async with Coordinator.open(valkey.url, settings=SHORT) as coordinator:
        floor = coordinator.room("call", silencer=silencer).floor
        first = await floor.request("a")
        _forget(coordinator)

        again = await floor.request("a")

        assert again.fence > first.fence
        assert again.held
        assert silencer.asked == []


async def test_a_standby_remembers_the_fences_that_were_announced(coordinator: Coordinator):
    """A server that came back empty granted the floor at once to a standby that had only heard of its holder."""
    floor = coordinator.room("call").floor
    announced = time.time_ns() // 1_000 + 60_000_000
    floor.witness(announced, "holder")

    assert await floor.try_request("b") is None

    lease = await floor.request("b")
    assert lease.fence > announced


async def test_a_grant_below_an_announced_fence_is_not_held_before_the_server_explained_it(coordinator: Coordinator):
    """The reply of a master that has been replaced meanwhile is read after the new one's grant was announced."""
    floor = coordinator.room("call").floor
    await floor.listen()
    asking = asyncio.create_task(floor.request("a"))
    while not coordinator._engine._pending:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    announced = time.time_ns() // 1_000 + 60_000_000
    floor.witness(announced, "b")

    lease = await asking

    assert not lease.held or lease.fence > announced
    async with asyncio.timeout(SOON):
        while not lease.held:
            await asyncio.sleep(0)
    assert lease.fence > announced


async def test_the_holder_claims_its_floor_from_one_that_an_older_state_brought_back(
    coordinator: Coordinator, other: Coordinator, store: Store
):
    """A replica that had missed the last grant was promoted, and a waiter asked it before the holder renewed."""
    here, there = coordinator.room("call"), other.room("call")
    key = here.floor._keys.lease
    await here.floor.request("a")
    older = await store.command("HGETALL", key)
    _forget(coordinator)
    await here.floor.revoke(reason="moved on")
    holder = await there.floor.request("b")
    here.floor.witness(holder.fence, "b")
    await store.command("DEL", key)
    await store.command("HSET", key, *older)
    await store.command("PEXPIRE", key, 60_000)
    assert (await here.floor.state()).holder == "a"

    assert await here.floor.try_request("c") is None
    await other._engine.keeper.renew(holder)

    assert holder.held
    state = await here.floor.state()
    assert (state.holder, state.fence) == ("b", holder.fence)


async def test_a_commit_without_an_answer_leaves_the_old_holder_silent(
    coordinator: Coordinator, other: Coordinator, monkeypatch: pytest.MonkeyPatch
):
    """The floor had moved, the reply was lost, and the old agent opened its gate again: two voices."""
    here, there = coordinator.room("call", silencer=Witness()), other.room("call", silencer=Witness())
    old = await here.floor.request("a")
    offer = await here.handoffs.offer(old, to_role="b", context=HandoffContext(), deadline=timedelta(seconds=5))
    await there.handoffs.claim(offer.id, agent="b")
    request = await there.handoffs.ready(offer.id, agent="b")
    expecting = asyncio.create_task(there.floor.expect_grant("b", role="b", request_id=request))
    run = here.handoffs._run

    async def unanswered(*args: Any) -> None:
        await run(*args)
        raise StoreUnavailable("the connection broke before the reply came")

    monkeypatch.setattr(here.handoffs, "_run", unanswered)

    with pytest.raises(StoreUnavailable):
        await here.handoffs.commit(old, offer.id)

    assert not old.held
    new: Lease = await asyncio.wait_for(expecting, SOON)
    assert new.held
    await asyncio.wait_for(old.lost.wait(), SOON)
