"""The checker catches a Baton that is broken: each mutant in a call that needs what the mutant lacks.

Each call is made twice: with the real thing, where the rule must hold, and with the mutant, where it must be broken.
Otherwise a call that breaks the rule by itself, or a checker that always cries, would pass for a proof.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio

from coordination.coordinator import Coordinator, Room
from coordination.room.members import Member, MemberState
from coordination.settings import CoordinatorSettings
from coordination.testing.checker import Bounds, Judgement, Rule, check
from coordination.testing.faults import FaultKind, RedisFaults, inflict, kill
from coordination.testing.history import FaultStruck, FloorEvent, History
from tests.chaos.calls import ChaosCall, Missed, calling
from tests.chaos.rig import Rig, rigged
from tests.chaos.words import ROLES

Scenario = Callable[[ChaosCall, asyncio.Barrier], Awaitable[None]]
"""What happens to a call; the barrier is for what has to happen to both calls in one moment."""
HEARD_FOR = 1.5
"""Seconds in which whoever should be silent is heard; twice the tail that may be heard."""
STAYS_FOR = 1.6
"""Seconds in which a holder that was silenced is stopped on: for longer than one may be in the room."""
BOUNDS = Bounds(tail=timedelta(milliseconds=700))
"""A holder that was stopped says what it had ahead when it goes on. A mutant says its whole answer."""
LONG_ENOUGH = 1.2
"""Seconds of speech that only the long answer has."""
SETTINGS = {"TEST_LONG": "36", "BATON_HANG_LIMIT": "60"}
"""An answer of nine seconds goes on for as long as anybody listens. That a holder is stopped is found out by nobody but
the standby, which may be broken."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rigged(tmp_path_factory.mktemp("mutants"), ROLES, **SETTINGS) as running:
        yield running


@asynccontextmanager
async def operating(call: ChaosCall) -> AsyncIterator[Room]:
    """An operator of the call, who knows nothing of what was granted so far, and moves the floor without silencing."""
    async with Coordinator.open(settings=CoordinatorSettings(redis_url=call.rig.valkey.url)) as coordinator:
        yield coordinator.room(call.sid)


async def speaking(call: ChaosCall) -> None:
    """Returns when the holder is in the middle of a long answer; asks again if it did not understand."""
    for _ in range(4):
        await call.until(lambda: call.quiet, within=15.0, what="quiet")
        await call.say("more")
        with suppress(Missed):
            await call.until(lambda: _speaks_at_length(call), within=4.0, what="a long answer")
            return
    raise Missed("a long answer")


def _speaks_at_length(call: ChaosCall) -> bool:
    since = call.heard.speaking_since()
    return since is not None and time.monotonic() - since > LONG_ENOUGH


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


async def the_floor_is_moved_in_mid_sentence(call: ChaosCall, _both: asyncio.Barrier) -> None:
    async with operating(call) as room:
        target = await standing_by(call, room)
        await speaking(call)
        await room.floor.grant(target.agent, target.process, role=target.role)
        await asyncio.sleep(HEARD_FOR)


async def redis_forgets_and_grants_to_another(call: ChaosCall, both: asyncio.Barrier) -> None:
    holder = call.holder()
    assert holder is not None
    async with operating(call) as room:
        target = await standing_by(call, room)
    redis = RedisFaults(call.rig.valkey)
    async with operating(call) as ignorant:
        await speaking(call)
        await call.recorder.catch_up()
        await both.wait()
        # Stopped for a moment, so that it cannot claim its floor in between: what it would be told then is no fence.
        holder.victim.signal(signal.SIGSTOP)
        try:
            # It is one Redis: one of the two wipes it, when both holders are stopped in mid-sentence.
            if await both.wait() == 0:
                await inflict(redis.wipe())
            await both.wait()
            await ignorant.floor.grant(target.agent, target.process, role=target.role)
        finally:
            holder.victim.signal(signal.SIGCONT)
        await asyncio.sleep(HEARD_FOR)


async def the_holder_is_stopped_in_mid_sentence(call: ChaosCall, _both: asyncio.Barrier) -> None:
    holder = call.holder()
    assert holder is not None
    await speaking(call)
    at = time.monotonic()
    holder.victim.signal(signal.SIGSTOP)
    try:
        hit = (holder.agent,)
        struck = FaultStruck(at=at, until=at, kind=FaultKind.PAUSE, target="holder", call=call.name, agents=hit)
        call.history.append(struck)
        await call.until(lambda: _was_silenced(call, holder.agent), within=20.0, what="its silencing")
        await asyncio.sleep(STAYS_FOR)
    finally:
        holder.victim.signal(signal.SIGCONT)


def _was_silenced(call: ChaosCall, agent: str) -> bool:
    return any(event.kind == "silence" and event.agent == agent for event in call.history.of(FloorEvent))


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


async def judged(rig: Rig, case: Case, both: asyncio.Barrier, *, mutant: str) -> Judgement:
    """One call, with one of its agents mutated or none."""
    history = History()
    name = f"mutant-{CASES.index(case)}-{'m' if mutant else 'r'}"
    try:
        async with calling(name, rig, history, mutants=("", mutant) if case.where else (mutant, "")) as call:
            await case.scenario(call, both)
            # A broken agent may stay for ever.
            for job in rig.jobs(name):
                await inflict(kill(job.victim))
    except BaseException:
        await both.abort()
        raise
    return check(history, bounds=BOUNDS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mutant)
async def test_a_mutant_is_caught_where_the_real_thing_passes(rig: Rig, case: Case) -> None:
    both = asyncio.Barrier(2)
    real, mutated = await asyncio.gather(
        judged(rig, case, both, mutant=""), judged(rig, case, both, mutant=case.mutant)
    )
    print(f"{case.mutant}\nreal: {real}\nmutant: {mutated}")

    assert [violation for rule in case.caught_by for violation in real.broken(rule)] == []
    for rule in case.caught_by:
        assert mutated.broken(rule), f"{rule} does not notice: {mutated}"
