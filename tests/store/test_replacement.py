"""A lost agent is replaced once it is silent, however long that takes; a room whose agents keep dying is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from coordination.coordinator import Coordinator
from coordination.ids import AgentId, RoleName, Tenant
from coordination.ports import Silenced, Silencer
from coordination.recovery.replacement import Policy, Replacement
from coordination.store import Store
from tests.store.clocks import CLOCK, shift_the_clock_of_scripts, step
from tests.store.fleets import fleet_agent


class Calls:
    """A media server that gives no answer at first, and to which nobody comes."""

    def __init__(self, *outcomes: Silenced, look: Callable[[], None] = lambda: None) -> None:
        self.outcomes, self.look, self.asked = list(outcomes), look, list[str]()

    def silencer(self, room: str, *, identities: Mapping[AgentId, str]) -> Silencer:
        return self

    async def silence(self, agent: AgentId) -> Silenced:
        self.look()
        outcome = self.outcomes.pop(0) if self.outcomes else Silenced.REMOVED
        self.asked.append(outcome.name)
        return outcome

    async def has_caller(self, room: str) -> bool:
        return True

    async def bring(self, role: RoleName, room: str, *, tenant: Tenant, instead_of: AgentId) -> None:
        self.asked.append("BRING")


def replacing(coordinator: Coordinator, calls: Calls, *, most: int = 5) -> Replacement:
    return Replacement(
        coordinator.fleet,
        calls,
        lambda lost, silencer: coordinator.visit(lost.room, tenant=lost.tenant, silencer=silencer),
        policy=Policy(dispatches=1, joins_within=timedelta(milliseconds=50), most=most),
    )


async def lose(coordinator: Coordinator, calls: Calls, *, times: int, most: int) -> None:
    """Agents of one room are lost one after the other, and taken up."""
    replacement = replacing(coordinator, calls, most=most)
    for number in range(times):
        lost = fleet_agent(coordinator, f"agent-{number}")
        assert await coordinator.fleet.enter(lost)
        await replacement.recover(lost, "a test")


def given_up() -> float:
    """Calls that were given up, as the metrics count them."""
    return REGISTRY.get_sample_value("baton_takeovers_total", {"how": "given up"}) or 0.0


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


async def test_a_room_whose_agents_keep_dying_is_left_alone(coordinator: Coordinator) -> None:
    calls = Calls()
    before = given_up()
    await lose(coordinator, calls, times=4, most=2)

    # Nobody came after the first two either; the other two were not tried.
    assert given_up() == before + 4
    assert calls.asked.count("BRING") == 2
    events = await coordinator.room("call").events.read()
    assert [event.kind for event in events].count("takeover") == 2
    assert events[-1].kind == "give_up"
    assert "2 agents were lost here" in events[-1].reason


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
