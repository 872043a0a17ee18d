"""The checker catches a Baton that is broken: each mutant in a call that needs what the mutant lacks.

`make chaos` begins with it.

Each call is made twice: with the real thing, where the rule must hold, and with the mutant, where it must be broken.
Otherwise a call that breaks the rule by itself, or a checker that always cries, would pass for a proof.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio

from coordination.coordinator import Coordinator, Room
from coordination.livekit.silence import RoomSilencer
from coordination.room.members import Member, MemberState
from coordination.settings import CoordinatorSettings
from coordination.testing.checker import Judgement, Rule, check
from coordination.testing.faults import inflict, kill, pause
from coordination.testing.history import FaultStruck, History
from coordination.testing.schedule import Phase
from tests.chaos.calls import ChaosCall, calling
from tests.chaos.rig import Rig, rigged
from tests.chaos.words import ROLES

Scenario = Callable[[ChaosCall], Awaitable[None]]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rigged(tmp_path_factory.mktemp("mutants"), ROLES) as running:
        yield running


@asynccontextmanager
async def operating(call: ChaosCall) -> AsyncIterator[Room]:
    """An operator of the call, who knows nothing of what was granted so far."""
    async with Coordinator.open(settings=CoordinatorSettings(redis_url=call.rig.valkey.url)) as coordinator:
        silencer = RoomSilencer(call.client, call.name)
        yield coordinator.room(call.sid, silencer=silencer)
        await silencer.aclose()


async def speaking(call: ChaosCall) -> None:
    """Returns when the holder is in the middle of a long answer."""
    await call.until(lambda: call.quiet, within=10.0, what="quiet")
    await call.say("more")
    await call.until(lambda: call.observer.phase is Phase.AGENT, within=10.0, what="an answer")
    await asyncio.sleep(0.6)


async def standing_by(call: ChaosCall, room: Room) -> Member:
    """The standby, once it waits for what an operator gives it."""
    standby = call.standby()
    assert standby is not None
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for member in await room.roster.members():
            if member.agent == standby.agent and member.state is MemberState.STANDBY:
                await asyncio.sleep(0.5)
                return member
        await asyncio.sleep(0.05)
    raise AssertionError("the second agent does not stand by")


async def the_floor_is_moved_in_mid_sentence(call: ChaosCall) -> None:
    async with operating(call) as room:
        target = await standing_by(call, room)
        await speaking(call)
        await room.floor.grant(target.agent, target.process, role=target.role)
        await asyncio.sleep(3.0)


async def redis_forgets_and_grants_to_another(call: ChaosCall) -> None:
    async with operating(call) as room:
        target = await standing_by(call, room)
    async with operating(call) as ignorant:
        await speaking(call)
        await call.recorder.catch_up()
        await inflict(call.rig.redis.wipe())
        await ignorant.floor.grant(target.agent, target.process, role=target.role)
        await asyncio.sleep(3.0)


async def the_holder_is_stopped_in_mid_sentence(call: ChaosCall) -> None:
    holder = call.holder()
    assert holder is not None
    await speaking(call)
    strike = await inflict(pause(holder.victim, lasting=timedelta(seconds=5)))
    until = (strike.until or strike.at).monotonic
    call.history.append(
        FaultStruck(
            at=strike.at.monotonic,
            until=until,
            kind=strike.kind,
            target=strike.target,
            call=call.name,
            agents=(holder.agent,),
        )
    )
    await asyncio.sleep(2.0)


@dataclass(frozen=True, slots=True)
class Case:
    mutant: str
    where: int
    """In the first agent (0), or in the standby (1): wherever the real thing does its part."""
    scenario: Scenario
    caught_by: tuple[Rule, ...]


CASES = (
    Case("gate always open", 0, the_floor_is_moved_in_mid_sentence, (Rule.FLOOR_TO_SPEAK,)),
    Case("fence ignored", 0, redis_forgets_and_grants_to_another, (Rule.FLOOR_TO_SPEAK,)),
    Case("no silencing", 1, the_holder_is_stopped_in_mid_sentence, (Rule.SILENCED,)),
)


async def judged(rig: Rig, case: Case, *, mutant: str) -> Judgement:
    """One call, with one of its agents mutated or none."""
    history = History()
    name = f"mutant-{CASES.index(case)}-{'m' if mutant else 'r'}"
    async with calling(name, rig, history, mutants=("", mutant) if case.where else (mutant, "")) as call:
        await case.scenario(call)
    for job in rig.jobs(name):
        await inflict(kill(job.victim))
    return check(history)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mutant)
async def test_a_mutant_is_caught_where_the_real_thing_passes(rig: Rig, case: Case) -> None:
    began = time.monotonic()
    # Side by side, unless what happens to one call happens to all.
    turns = asyncio.Semaphore(1 if case.scenario is redis_forgets_and_grants_to_another else 2)

    async def judge(mutant: str) -> Judgement:
        async with turns:
            return await judged(rig, case, mutant=mutant)

    real, mutated = await asyncio.gather(judge(""), judge(case.mutant))
    print(f"{case.mutant}: {time.monotonic() - began:.0f} s\nreal: {real}\nmutant: {mutated}")

    assert [violation for rule in case.caught_by for violation in real.broken(rule)] == []
    for rule in case.caught_by:
        assert mutated.broken(rule), f"{rule} does not notice: {mutated}"
