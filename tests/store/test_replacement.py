"""A lost agent is replaced once it is silent, however long that takes; a room whose agents keep dying is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import REGISTRY

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import DispatchFailed
from coordination.handoff.context import HandoffContext
from coordination.ids import DEFAULT_TENANT, AgentId, RoleName, RoomName, Tenant, WorkerId
from coordination.ports import Silenced, Silencer
from coordination.recovery.fleet import CLAIM_FOR
from coordination.recovery.replacement import Policy, Replacement
from coordination.room.members import MemberState
from coordination.settings import CoordinatorSettings
from coordination.store import Store
from tests.store.clocks import CLOCK, shift_the_clock_of_scripts, step
from tests.store.fleets import fleet_agent


class Calls:
    """A media server that gives no answer at first, and to which nobody comes."""

    def __init__(self, *outcomes: Silenced, look: Callable[[], None] = lambda: None, caller: bool = True) -> None:
        self.outcomes, self.look, self.caller = list(outcomes), look, caller
        self.asked = list[str]()
        self.brought: list[tuple[RoleName, float]] = []
        self.on_bring: Callable[[], None] = lambda: None
        self.on_look_for_caller: Callable[[], None] = lambda: None

    def silencer(self, room: str, *, identities: Mapping[AgentId, str]) -> Silencer:
        return self

    async def silence(self, agent: AgentId) -> Silenced:
        self.look()
        outcome = self.outcomes.pop(0) if self.outcomes else Silenced.REMOVED
        self.asked.append(outcome.name)
        return outcome

    async def has_caller(self, room: str) -> bool:
        self.on_look_for_caller()
        return self.caller

    async def bring(self, role: RoleName, room: str, *, tenant: Tenant, instead_of: AgentId) -> None:
        self.asked.append("BRING")
        self.brought.append((role, asyncio.get_running_loop().time()))
        self.on_bring()


def replacing(coordinator: Coordinator, calls: Calls, **policy: Any) -> Replacement:
    return Replacement(
        coordinator.fleet,
        calls,
        lambda lost, silencer: coordinator.visit(lost.room, tenant=lost.tenant, silencer=silencer),
        policy=Policy(**{"dispatches": 1, "joins_within": timedelta(milliseconds=50), **policy}),
    )


async def lose(coordinator: Coordinator, calls: Calls, *, times: int = 1, **policy: Any) -> None:
    """Agents of one room are lost one after the other, and taken up."""
    replacement = replacing(coordinator, calls, **policy)
    for number in range(times):
        lost = fleet_agent(coordinator, f"agent-{number}")
        assert await coordinator.fleet.enter(lost)
        await replacement.recover(lost, "a test")


def taken_up(how: str = "given up") -> float:
    """Calls of lost agents, as the metrics count them."""
    return REGISTRY.get_sample_value("baton_takeovers_total", {"how": how}) or 0.0


async def join(coordinator: Coordinator, role: str) -> None:
    """A standby is on the roster; its role is its name."""
    await coordinator.room("call").roster.join(
        agent=AgentId(role), role=RoleName(role), worker=WorkerId("w"), state=MemberState.STANDBY, claim=False
    )


@asynccontextmanager
async def standing_by(coordinator: Coordinator, *roles: str) -> AsyncGenerator[dict[str, asyncio.Task[Any]]]:
    """Standbys that wait for the floor, in this order of joining."""
    floor = coordinator.room("call").floor
    waiting: dict[str, asyncio.Task[Any]] = {}
    for role in roles:
        await join(coordinator, role)
        request = floor.accept_grants(role)
        waiting[role] = asyncio.create_task(floor.expect_grant(role, role=role, request_id=request, timeout=None))
    yield waiting
    for task in waiting.values():
        task.cancel()
    await asyncio.gather(*waiting.values(), return_exceptions=True)
    await coordinator.room("call").close()


async def first_of(waiting: dict[str, asyncio.Task[Any]]) -> str:
    """Who has been given the floor."""
    granted, _ = await asyncio.wait(waiting.values(), timeout=8.0, return_when=asyncio.FIRST_COMPLETED)
    (role,) = [role for role, task in waiting.items() if task in granted]
    return role


def comes(coordinator: Coordinator) -> asyncio.Task[Any]:
    """An agent arrives and asks for the floor."""
    return asyncio.create_task(coordinator.room("call").floor.request("heir", timeout=None))


async def test_nobody_has_the_floor_of_a_lost_agent_while_livekit_does_not_say_that_it_is_silent(
    coordinator: Coordinator, other: Coordinator
) -> None:
    calls = Calls(Silenced.UNREACHABLE, Silenced.UNREACHABLE)
    lost = fleet_agent(other, "lost")
    await other.room("call", silencer=calls).floor.request("lost")
    assert await other.fleet.enter(lost)
    waiting = asyncio.create_task(coordinator.room("call", silencer=calls).floor.request("heir", timeout=None))
    await asyncio.sleep(0.05)

    def too_early() -> None:
        assert not waiting.done()

    calls.look = too_early
    await replacing(coordinator, calls).recover(lost, "a test")

    assert (await waiting).held
    assert calls.asked == ["UNREACHABLE", "UNREACHABLE", "REMOVED"], "asked until it answered; the waiter is the heir"
    assert await coordinator.fleet.agent(lost.agent) is None


@pytest.mark.parametrize("keep", [True, False], ids=["keep", "silence"])
async def test_without_livekits_api_a_floor_is_free_under_policy_silence_once_its_holder_has_shut_its_gate(
    valkey: EmbeddedValkey, store: Store, keep: bool
) -> None:
    settings = CoordinatorSettings(keep_floor=keep, floor_ttl=timedelta(seconds=1))
    # Longer than the holder's own deadline, and then LiveKit answers.
    calls = Calls(*[Silenced.UNREACHABLE] * 8)
    async with (
        Coordinator.open(valkey.url, settings=settings) as here,
        Coordinator.open(valkey.url, settings=settings) as there,
    ):
        lost = fleet_agent(there, "lost")
        holder = await there.room("call", silencer=calls).floor.request("lost")
        assert await there.fleet.enter(lost)
        await replacing(here, calls).recover(lost, "a test")

        assert holder.lost.is_set()
        assert (await here.room("call").floor.state()).holder is None
    assert len(calls.asked) > 2, "not before what is left of the lease has run out"
    assert ("REMOVED" in calls.asked) is keep


async def test_nobody_is_sent_for_into_a_room_that_its_caller_has_left(coordinator: Coordinator) -> None:
    calls, before = Calls(caller=False), taken_up()
    await lose(coordinator, calls)

    assert calls.asked == ["REMOVED"], "the lost agent is silenced all the same"
    assert taken_up() == before, "and no call is given up"


async def test_who_does_not_come_is_sent_for_again_with_more_time_and_at_last_one_of_a_fallback_role(
    coordinator: Coordinator,
) -> None:
    calls = Calls()
    fallback = {"billing": ("receptionist", "technical")}
    await lose(coordinator, calls, dispatches=3, joins_within=timedelta(milliseconds=200), fallback=fallback)

    assert [role for role, _ in calls.brought] == ["billing", "billing", "billing", "receptionist"]
    times = [at for _, at in calls.brought]
    waited = [later - earlier for earlier, later in pairwise(times)]
    assert all(had >= wanted for had, wanted in zip(waited, (0.2, 0.3, 0.45), strict=True))


async def test_a_dispatch_that_livekit_does_not_take_is_repeated(coordinator: Coordinator, other: Coordinator) -> None:
    calls, before = Calls(), taken_up("dispatched")
    coming: list[asyncio.Task[Any]] = []

    def refuse_once() -> None:
        if len(calls.brought) == 1:
            raise DispatchFailed("LiveKit is away")
        coming.append(comes(other))

    calls.on_bring = refuse_once
    await lose(coordinator, calls, dispatches=2, joins_within=timedelta(seconds=5))

    assert len(calls.brought) == 2
    assert (await coming[0]).held
    assert taken_up("dispatched") == before + 1


async def test_an_agent_whose_sender_died_is_waited_for_and_not_sent_for_twice(
    coordinator: Coordinator, other: Coordinator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift_the_clock_of_scripts(monkeypatch)
    calls, coming, before = Calls(), list[asyncio.Task[Any]](), taken_up()
    lost = fleet_agent(coordinator, "lost")
    try:
        assert await coordinator.fleet.enter(lost)
        assert await other.fleet.claim(lost.agent, dispatched=timedelta(minutes=1))
        await other.room("call").events.publish("takeover", agent=lost.agent)
        await replacing(coordinator, calls).recover(lost, "waited for")
        assert calls.asked == [], "the claim is another process's"
        assert REGISTRY.get_sample_value("baton_lost_agents_total", {"reason": "waited for"}) is None

        await step(store, CLAIM_FOR)
        calls.on_look_for_caller = lambda: coming.append(comes(other))
        await replacing(coordinator, calls, most=1).recover(lost, "waited for")
    finally:
        await store.command("DEL", CLOCK)

    assert (await coming[0]).held
    assert calls.brought == []
    assert REGISTRY.get_sample_value("baton_lost_agents_total", {"reason": "waited for"}) == 1, "by who replaced it"
    assert taken_up() == before, "what was tried for this very agent does not count against it"


async def test_of_the_standbys_the_best_fallback_role_goes_first_whoever_joined_first(
    coordinator: Coordinator, other: Coordinator
) -> None:
    before, calls = taken_up("standby"), Calls()
    async with standing_by(other, "sales", "receptionist", "technical") as waiting:
        await lose(coordinator, calls, fallback={"billing": ("technical", "receptionist")})
        assert await first_of(waiting) == "technical"

    assert calls.brought == []
    assert taken_up("standby") == before + 1


async def test_who_was_promised_the_floor_has_it_before_a_standby_of_the_role(
    coordinator: Coordinator, other: Coordinator
) -> None:
    room = other.room("call")
    lost = fleet_agent(other, "lost")
    assert await other.fleet.enter(lost)
    lease = await room.floor.request("lost", role="billing")
    async with standing_by(other, "billing", "technical") as waiting:
        offer = await room.handoffs.offer(
            lease, to_role="technical", context=HandoffContext(), deadline=timedelta(seconds=5)
        )
        await room.handoffs.claim(offer.id, agent="technical")
        await room.handoffs.ready(offer.id, agent="technical")
        await replacing(coordinator, Calls()).recover(lost, "a test")
        assert await first_of(waiting) == "technical"


async def test_a_standby_that_is_gone_or_does_not_take_the_floor_is_passed_over(
    coordinator: Coordinator, other: Coordinator, valkey: EmbeddedValkey
) -> None:
    calls = Calls()
    async with Coordinator.open(valkey.url) as third:
        await join(third, "gone")
        store = third._engine.store
        await store.subscriber.unsubscribe(
            store.keys.room(RoomName("call"), Tenant(DEFAULT_TENANT)).of_process(third.process)
        )
        await join(other, "deaf")
        async with standing_by(other, "receptionist") as waiting:
            assert all(each.alive for each in await coordinator.room("call").roster.members())
            await lose(coordinator, calls, fallback={"billing": ("gone", "deaf", "receptionist")})
            assert await first_of(waiting) == "receptionist"
    assert calls.brought == []
    tried = [event.role for event in await coordinator.room("call").events.read() if event.kind == "takeover"]
    assert tried == ["gone", "deaf", "receptionist"]


async def test_whoever_offered_the_floor_to_a_lost_agent_learns_it_at_once(
    coordinator: Coordinator, other: Coordinator
) -> None:
    room, calls = coordinator.room("call"), Calls()
    lease = await room.floor.request("a", role="billing")
    offer = await room.handoffs.offer(
        lease, to_role="technical", context=HandoffContext(), deadline=timedelta(seconds=30)
    )
    await other.room("call").handoffs.claim(offer.id, agent="lost")
    lost = fleet_agent(other, "lost")
    assert await other.fleet.enter(lost)
    await replacing(coordinator, calls).recover(lost, "a test")

    handoff = await room.handoffs.current()
    assert handoff is not None
    assert (handoff.open, handoff.reason) == (False, "the agent is lost: a test")
    assert lease.held
    assert calls.asked == ["REMOVED"], "the holder is there: nobody else is needed"


async def test_a_recovery_that_lasts_long_stays_with_the_process_that_began_it(
    coordinator: Coordinator, other: Coordinator
) -> None:
    lost = fleet_agent(other, "lost")
    assert await other.fleet.enter(lost)
    recovering = asyncio.create_task(
        replacing(coordinator, Calls(*[Silenced.UNREACHABLE] * 100)).recover(lost, "a test")
    )
    await asyncio.sleep(CLAIM_FOR.total_seconds() + 0.3)
    claimed = await other.fleet.claim(lost.agent)
    recovering.cancel()
    await asyncio.gather(recovering, return_exceptions=True)

    assert claimed is None


async def test_a_room_whose_agents_keep_dying_is_left_alone(coordinator: Coordinator) -> None:
    calls = Calls()
    before = taken_up()
    await lose(coordinator, calls, times=4, most=2)

    # Nobody came after the first two either; the other two were not tried.
    assert taken_up() == before + 4
    assert calls.asked.count("BRING") == 2
    events = await coordinator.room("call").events.read()
    assert [event.kind for event in events].count("takeover") == 2
    assert events[-1].kind == "give_up"
    assert "2 agents were lost here" in events[-1].reason


async def test_agents_are_counted_that_were_lost_and_not_the_attempts_to_replace_them(coordinator: Coordinator) -> None:
    calls = Calls()
    await lose(coordinator, calls, times=3, dispatches=3, joins_within=timedelta(milliseconds=20), most=2)

    assert len(calls.brought) == 6, "three attempts for each of two agents; the third is one too many"


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1)], ids=["behind", "ahead"])
async def test_a_watcher_whose_clock_is_off_counts_the_lost_agents_of_the_window(
    coordinator: Coordinator, store: Store, monkeypatch: pytest.MonkeyPatch, off: timedelta
) -> None:
    shift_the_clock_of_scripts(monkeypatch)
    calls = Calls()
    try:
        await step(store, off)
        await lose(coordinator, calls, times=3, most=2)
        assert calls.asked.count("BRING") == 2, "all of them are of the last ten minutes"

        await step(store, off + timedelta(minutes=11))
        await lose(coordinator, calls, times=3, most=2)
        assert calls.asked.count("BRING") == 4, "those of before do not count any more"
    finally:
        await store.command("DEL", CLOCK)
