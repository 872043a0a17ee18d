"""The roster: claims, heartbeats, removal, and the lifetime of a room's keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, cast

import pytest

from coordination.errors import InvalidArgument, InvalidName, RoleTaken
from coordination.ids import AgentId, ProcessId, RoleName, RoomName, Tenant, WorkerId
from coordination.room.changes import Changes
from coordination.room.members import Member, MemberState
from coordination.room.roster import AgentRemoved, AgentTaken, Membership, MembershipLoss, Roster
from coordination.store import RoomKeys, Store

NewRoster = Callable[[str], Roster]


@pytest.fixture
def keys(store: Store) -> RoomKeys:
    return store.keys.room(RoomName("call-7"), Tenant("acme"))


@pytest.fixture
async def changes(store: Store, keys: RoomKeys) -> Changes:
    return Changes(store.subscriber, keys.everyone)


@pytest.fixture
async def new_roster(store: Store, keys: RoomKeys, changes: Changes) -> AsyncIterator[NewRoster]:
    """Makes the roster as a process sees it; all of them share one connection, which their processes listen on."""
    rosters: list[Roster] = []

    def make(process: str) -> Roster:
        rosters.append(Roster(store, keys, ProcessId(process), changes))
        return rosters[-1]

    for name in ("p1", "p2"):
        await store.subscriber.subscribe(keys.of_process(ProcessId(name)), lambda _: None)
    yield make
    for roster in rosters:
        await roster.close()


@pytest.fixture
def roster(new_roster: NewRoster) -> Roster:
    return new_roster("p1")


async def join(roster: Roster, agent: str, role: str, **options: Any) -> Membership:
    return await roster.join(agent=AgentId(agent), role=RoleName(role), worker=WorkerId("w1"), **options)


async def last_beat(store: Store, keys: RoomKeys, agent: str, ago: timedelta) -> None:
    """Makes the server believe that the agent's last heartbeat was so long ago."""
    seconds, micros = cast("tuple[bytes, bytes]", await store.command("TIME"))
    then = int(seconds) * 1_000_000 + int(micros) - ago // timedelta(microseconds=1)
    await store.command("ZADD", keys.beats, then, agent)


async def vanish(store: Store, keys: RoomKeys, process: str) -> None:
    await store.subscriber.unsubscribe(keys.of_process(ProcessId(process)))
    while await store.command("SPUBLISH", keys.of_process(ProcessId(process)), "ping"):
        await asyncio.sleep(0.01)


def names(members: tuple[Member, ...]) -> list[str]:
    return [member.agent for member in members]


async def test_a_member_is_listed_with_everything_it_said(roster: Roster) -> None:
    membership = await join(
        roster, "b1", "billing", skills=("refunds", "invoices"), identity="agent-b1", state=MemberState.STANDBY
    )
    assert await roster.members() == (membership.member,)
    member = membership.member
    assert (member.role, member.worker, member.process) == ("billing", "w1", "p1")
    assert (member.skills, member.identity, member.state) == (("refunds", "invoices"), "agent-b1", MemberState.STANDBY)
    assert member.alive
    assert member.joined_at.tzinfo is not None


async def test_members_are_listed_in_the_order_in_which_they_joined(roster: Roster) -> None:
    for agent in ("z", "a", "m"):
        await join(roster, agent, f"role of {agent}")
    assert names(await roster.members()) == ["z", "a", "m"]


class TestClaims:
    async def test_a_role_has_one_live_agent(self, new_roster: NewRoster) -> None:
        await join(new_roster("p1"), "b1", "billing")
        with pytest.raises(RoleTaken) as refused:
            await join(new_roster("p2"), "b2", "billing")
        assert (refused.value.role, refused.value.by) == ("billing", "b1")

    async def test_of_many_that_claim_at_once_one_gets_the_role(self, roster: Roster) -> None:
        outcomes = await asyncio.gather(*(join(roster, f"b{n}", "billing") for n in range(20)), return_exceptions=True)
        assert sum(isinstance(outcome, Membership) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, RoleTaken) for outcome in outcomes) == 19
        assert len(await roster.members()) == 1

    async def test_without_a_claim_several_serve_one_role(self, roster: Roster) -> None:
        await join(roster, "b1", "billing", claim=False)
        await join(roster, "b2", "billing", claim=False)
        assert names(await roster.members()) == ["b1", "b2"]

    async def test_a_leaving_agent_has_given_its_role_up(self, roster: Roster) -> None:
        first = await join(roster, "b1", "billing")
        await first.set_state(MemberState.LEAVING)
        await join(roster, "b2", "billing")
        assert names(await roster.members()) == ["b1", "b2"]

    async def test_a_role_is_free_after_leave(self, roster: Roster) -> None:
        await (await join(roster, "b1", "billing")).leave()
        await join(roster, "b2", "billing")
        assert names(await roster.members()) == ["b2"]

    async def test_an_agent_silent_for_six_seconds_is_replaced_though_its_process_listens(
        self, new_roster: NewRoster, store: Store, keys: RoomKeys
    ) -> None:
        first = await join(new_roster("p1"), "b1", "billing")
        await last_beat(store, keys, "b1", timedelta(seconds=6.1))
        await join(new_roster("p2"), "b2", "billing")
        assert names(await new_roster("p2").members()) == ["b2"]
        await asyncio.wait_for(first.lost.wait(), 3)
        assert first.reason is MembershipLoss.REMOVED

    async def test_an_agent_that_is_late_by_a_heartbeat_keeps_its_role_while_its_process_listens(
        self, new_roster: NewRoster, store: Store, keys: RoomKeys
    ) -> None:
        await join(new_roster("p1"), "b1", "billing")
        await last_beat(store, keys, "b1", timedelta(seconds=1.7))
        with pytest.raises(RoleTaken):
            await join(new_roster("p2"), "b2", "billing")

    async def test_an_agent_that_is_late_and_whose_process_is_gone_is_replaced(
        self, new_roster: NewRoster, store: Store, keys: RoomKeys
    ) -> None:
        await join(new_roster("p1"), "b1", "billing")
        await vanish(store, keys, "p1")
        with pytest.raises(RoleTaken):
            await join(new_roster("p2"), "b2", "billing")
        await last_beat(store, keys, "b1", timedelta(seconds=1.7))
        await join(new_roster("p2"), "b2", "billing")
        assert await new_roster("p2").removed() == {"b1"}


class TestSameAgentTwice:
    async def test_a_live_agent_id_cannot_be_used_by_another_process(self, new_roster: NewRoster) -> None:
        await join(new_roster("p1"), "b1", "billing")
        with pytest.raises(AgentTaken, match="p1"):
            await join(new_roster("p2"), "b1", "billing")

    async def test_nor_twice_by_one_process(self, roster: Roster) -> None:
        await join(roster, "b1", "billing")
        with pytest.raises(AgentTaken):
            await join(roster, "b1", "billing")

    async def test_a_restarted_process_takes_its_agent_over_and_the_old_one_learns_it(
        self, new_roster: NewRoster, store: Store, keys: RoomKeys
    ) -> None:
        old = await join(new_roster("p1"), "b1", "billing")
        await last_beat(store, keys, "b1", timedelta(seconds=7))
        new = await join(new_roster("p2"), "b1", "billing")
        await asyncio.wait_for(old.lost.wait(), 3)
        assert old.reason is MembershipLoss.ELSEWHERE
        await old.leave()
        assert await new_roster("p2").members() == (new.member,)


class TestRemoval:
    async def test_a_removed_agent_learns_it_and_is_refused(self, new_roster: NewRoster) -> None:
        membership = await join(new_roster("p1"), "b1", "billing")
        assert await new_roster("p2").remove(AgentId("b1"), reason="takeover")
        await asyncio.wait_for(membership.lost.wait(), 1)
        assert membership.reason is MembershipLoss.REMOVED
        with pytest.raises(AgentRemoved):
            await join(new_roster("p1"), "b1", "billing")
        assert await new_roster("p2").members() == ()
        assert await new_roster("p2").removed() == {"b1"}

    async def test_removal_is_repeatable_and_needs_no_member(self, roster: Roster) -> None:
        assert not await roster.remove(AgentId("stranger"), reason="takeover")
        assert not await roster.remove(AgentId("stranger"), reason="takeover")
        assert await roster.removed() == {"stranger"}

    async def test_a_lost_member_writes_nothing_any_more(self, roster: Roster) -> None:
        membership = await join(roster, "b1", "billing")
        await roster.remove(AgentId("b1"), reason="takeover")
        await membership.set_state(MemberState.HOLDER)
        await membership.leave()
        assert await roster.members() == ()


class TestLifetime:
    async def test_a_heartbeat_keeps_every_key_of_the_room(self, roster: Roster, store: Store, keys: RoomKeys) -> None:
        membership = await join(roster, "b1", "billing")
        await store.command("HSET", keys.context, "v", "1")
        await store.command("PEXPIRE", keys.context, 1000)
        await membership.set_state(MemberState.STANDBY)
        assert 50_000 < await store.command("PTTL", keys.context) <= 55_000
        assert 50_000 < await store.command("PTTL", keys.roster) <= 55_000

    async def test_the_last_member_that_leaves_lets_everything_expire_soon(
        self, roster: Roster, store: Store, keys: RoomKeys
    ) -> None:
        first, last = await join(roster, "b1", "billing"), await join(roster, "t1", "technical")
        await first.leave()
        assert await store.command("PTTL", keys.roster) > 50_000
        await last.leave()
        left: list[bytes] = await store.command("KEYS", "*")
        assert left
        assert all([0 < await store.command("PTTL", name) <= 30_000 for name in left])

    async def test_a_room_that_the_server_forgot_is_put_back_by_the_heartbeat(
        self, roster: Roster, store: Store
    ) -> None:
        membership = await join(roster, "b1", "billing", skills=("refunds",))
        await store.command("FLUSHALL")
        await membership.set_state(MemberState.HOLDER)
        assert await roster.members() == (membership.member,)
        assert membership.member.state is MemberState.HOLDER

    async def test_unless_another_agent_claimed_the_role_meanwhile(self, new_roster: NewRoster, store: Store) -> None:
        old, other = await join(new_roster("p1"), "b1", "billing"), new_roster("p2")
        async with asyncio.timeout(5):
            while True:
                await store.command("FLUSHALL")
                try:
                    await join(other, "b2", "billing")
                    break
                except RoleTaken:
                    continue  # A heartbeat of the old agent came first, and put it back: forgotten again.
        await asyncio.wait_for(old.lost.wait(), 3)
        assert old.reason is MembershipLoss.ROLE_TAKEN

    async def test_a_heartbeat_comes_by_itself(self, roster: Roster, store: Store, keys: RoomKeys) -> None:
        await join(roster, "b1", "billing")
        await last_beat(store, keys, "b1", timedelta(seconds=5))
        (late,) = await roster.members()
        assert late.silent_for > timedelta(seconds=4)
        await asyncio.sleep(2.2)
        (member,) = await roster.members()
        assert member.silent_for < timedelta(seconds=1)

    async def test_a_cancelled_join_leaves_nothing_behind(self, roster: Roster) -> None:
        cancelled = 0
        for yields in range(8):
            joining = asyncio.create_task(join(roster, f"b{yields}", "billing"))
            for _ in range(yields):
                await asyncio.sleep(0)
            joining.cancel()
            (outcome,) = await asyncio.gather(joining, return_exceptions=True)
            if isinstance(outcome, Membership):
                await outcome.leave()
            cancelled += isinstance(outcome, asyncio.CancelledError)
            assert await roster.members() == ()
        assert cancelled >= 2


class TestWatch:
    async def test_it_starts_with_the_current_state_and_tells_each_change(self, roster: Roster) -> None:
        membership = await join(roster, "b1", "billing")
        async with aclosing(cast("Any", roster.watch())) as states:
            assert names(await anext(states)) == ["b1"]
            other = await join(roster, "t1", "technical")
            assert names(await asyncio.wait_for(anext(states), 1)) == ["b1", "t1"]
            await membership.set_state(MemberState.HOLDER)
            assert (await asyncio.wait_for(anext(states), 1))[0].state is MemberState.HOLDER
            await other.leave()
            assert names(await asyncio.wait_for(anext(states), 1)) == ["b1"]

    async def test_a_change_whose_message_was_lost_is_told_all_the_same(
        self, roster: Roster, changes: Changes, store: Store, keys: RoomKeys
    ) -> None:
        async with aclosing(cast("Any", roster.watch())) as states:
            assert await anext(states) == ()
            await store.subscriber.unsubscribe(keys.everyone)
            await join(roster, "b1", "billing")
            assert names(await asyncio.wait_for(anext(states), 4)) == ["b1"]


@pytest.mark.parametrize("bad", ["", "x" * 300, "{b1}", "b\n1", 7])
@pytest.mark.parametrize("field", ["agent", "role", "worker"])
async def test_bad_names_are_refused(roster: Roster, field: str, bad: Any) -> None:
    good: dict[str, Any] = {"agent": "b1", "role": "billing", "worker": "w1"}
    with pytest.raises(InvalidName):
        await roster.join(**{**good, field: bad})
    assert await roster.members() == ()


async def test_bad_skills_and_identities_are_refused(roster: Roster) -> None:
    with pytest.raises(InvalidArgument, match="one string"):
        await join(roster, "b1", "billing", skills="refunds")
    with pytest.raises(InvalidName):
        await join(roster, "b1", "billing", skills=("",))
    with pytest.raises(InvalidName):
        await join(roster, "b1", "billing", identity="x" * 300)
