"""Handoffs between real worker processes, and what becomes of a call when one of them is killed or stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from livekit import api

from coordination.coordinator import Coordinator
from coordination.room.turns import Speaker
from coordination.settings import CoordinatorSettings
from tests.rooms.callers import Caller, calling
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer, LiveRoom
from tests.rooms.team import STANDBY
from tests.rooms.workers import LONG, WorkerProcess, wait_until_ready


@pytest.fixture(scope="module")
def workers(
    livekit_server: LiveKitServer, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, WorkerProcess]]:
    """A receptionist, a billing agent, and a technical one that dies whenever it is asked to prepare."""
    folder = tmp_path_factory.mktemp("workers")
    environment = {
        **livekit_server.environment,
        "BATON_REDIS_URL": redis_url,
        "BATON_FALLBACK_ROLES": '{"*": ["billing", "receptionist"]}',
    }
    started = [
        WorkerProcess(role="receptionist", environment=environment, folder=folder).start(),
        WorkerProcess(role="billing", environment=environment, folder=folder).start(),
        WorkerProcess(role="technical", environment=environment, folder=folder, dies_at="prepare").start(),
    ]
    try:
        wait_until_ready(started)
        yield {worker.role: worker for worker in started}
    finally:
        for worker in started:
            worker.stop()


@dataclass(slots=True)
class Call:
    """One call served by worker processes, looked at from outside."""

    live: LiveRoom
    caller: Caller
    room: Any
    workers: dict[str, WorkerProcess]

    async def dispatch(self, role: str, metadata: str = "") -> None:
        await self.live.api.agent_dispatch.create_dispatch(
            api.CreateAgentDispatchRequest(agent_name=role, room=self.live.name, metadata=metadata)
        )

    async def stand_by(self, role: str) -> None:
        import json

        await self.dispatch(role, json.dumps(STANDBY))

        async def standing_by() -> bool:
            return any(m.role == role and m.state == "standby" for m in await self.room.roster.members())

        await until(standing_by, f"{role} stands by")

    async def holder(self) -> str | None:
        state = await self.room.floor.state()
        return state.role if state.holder is not None else None

    async def held_by(self, role: str, *, within: float = 12.0) -> None:
        async def held() -> bool:
            return await self.holder() == role

        await until(held, f"{role} has the floor", within=within)

    def identity(self, role: str) -> str:
        return f"agent-{self.workers[role].job(self.live.name)[1]}"

    def process(self, role: str) -> int:
        return self.workers[role].job(self.live.name)[0]

    async def hears(self, role: str, *, since: float, within: float = 10.0) -> None:
        await eventually(
            lambda: self.caller.ears.first_audible(self.identity(role), since=since) is not None,
            f"{role} is heard",
            within=within,
        )

    async def said_by(self, role: str) -> list[str]:
        turns = await self.room.turns.read()
        return [turn.text for turn in turns if turn.speaker is Speaker.AGENT and turn.role == role]

    def overlap(self, *roles: str) -> float:
        slots = [{int(frame.at * 100) for frame in self.caller.ears.audible(self.identity(role))} for role in roles]
        return len(set.intersection(*slots)) / 100


async def until(holds: Any, description: str, *, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not await holds():
        assert time.monotonic() < deadline, f"not within {within:g} s: {description}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def served(make_room: RoomFactory, redis_url: str, workers: dict[str, WorkerProcess]) -> AsyncIterator[Call]:
    """A call that the receptionist has answered."""
    live = await make_room()
    coordinator = await Coordinator.open(settings=CoordinatorSettings(redis_url=redis_url))
    try:
        async with calling(live) as caller:
            call = Call(live, caller, coordinator.room(live.sid), workers)
            await call.dispatch("receptionist")
            await call.held_by("receptionist", within=30)
            await call.hears("receptionist", since=0.0)
            await eventually(
                lambda: not caller.ears.hears(call.identity("receptionist"), within=0.3), "the greeting is over"
            )
            yield call
            await call.room.close()
    finally:
        await coordinator.close()


async def test_an_agent_is_dispatched_for_a_handoff_and_the_caller_never_waits_in_silence_for_nothing(
    make_room: RoomFactory, redis_url: str, workers: dict[str, WorkerProcess]
) -> None:
    async with served(make_room, redis_url, workers) as call:
        await call.caller.say("billing please")
        await call.held_by("billing")
        await call.hears("billing", since=0.0)
        await call.caller.say("one two")

        async def answered() -> bool:
            return "billing heard one two" in await call.said_by("billing")

        await until(answered, "billing answers")

        metrics = await asyncio.to_thread(workers["receptionist"].metrics)
        assert 'baton_handoffs_total{kind="dispatched",outcome="committed"}' in metrics, "job processes are counted"
        assert await call.said_by("receptionist") == ["hello from receptionist"]
        assert (await call.said_by("billing"))[0] == "billing goes on", "no second greeting"
        assert call.overlap("receptionist", "billing") == 0


async def test_a_target_that_dies_while_it_prepares_leaves_the_floor_where_it_was(
    make_room: RoomFactory, redis_url: str, workers: dict[str, WorkerProcess]
) -> None:
    async with served(make_room, redis_url, workers) as call:
        began = time.monotonic()
        await call.caller.say("technical please")
        await call.hears("receptionist", since=began + 1.0)
        await call.caller.say("three four")

        async def answered() -> bool:
            return "receptionist heard three four" in await call.said_by("receptionist")

        await until(answered, "the receptionist goes on")
        assert await call.holder() == "receptionist"


async def test_a_holder_that_is_killed_is_followed_by_the_standby(
    make_room: RoomFactory, redis_url: str, workers: dict[str, WorkerProcess]
) -> None:
    async with served(make_room, redis_url, workers) as call:
        await call.stand_by("billing")
        await call.caller.say("more")
        await call.hears("receptionist", since=time.monotonic())

        killed = time.monotonic()
        os.kill(call.process("receptionist"), signal.SIGKILL)
        await call.held_by("billing")
        await call.hears("billing", since=killed)

        async def logged() -> bool:
            return bool(await call.said_by("billing"))

        await until(logged, "its words are in the log")
        assert (await call.said_by("billing"))[0] in LONG, "a successor does not greet, it says the rest"
        assert call.overlap("receptionist", "billing") == 0
        assert call.identity("receptionist") not in await call.live.identities(), "the dead agent was silenced"


async def test_a_holder_that_is_stopped_in_mid_sentence_wakes_up_silent_and_leaves(
    make_room: RoomFactory, redis_url: str, workers: dict[str, WorkerProcess]
) -> None:
    async with served(make_room, redis_url, workers) as call:
        await call.stand_by("billing")
        await call.caller.say("more")
        await call.hears("receptionist", since=time.monotonic())

        sleeper = call.process("receptionist")
        os.kill(sleeper, signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            await call.held_by("billing")
            await call.hears("billing", since=stopped)
        finally:
            os.kill(sleeper, signal.SIGCONT)
        woke = time.monotonic()

        async def gone() -> bool:
            present = await call.live.identities()
            members = [member.role for member in await call.room.roster.members()]
            return call.identity("receptionist") not in present and "receptionist" not in members

        await until(gone, "the old agent has left")
        await asyncio.sleep(1.0)
        assert call.caller.ears.seconds(call.identity("receptionist"), since=woke + 0.2) == 0
        assert call.overlap("receptionist", "billing") == 0
        assert await call.holder() == "billing"


@pytest.mark.parametrize("victim", ["receptionist", "billing"])
async def test_a_death_between_ready_and_commit_leaves_the_call_with_one_holder(
    make_room: RoomFactory, redis_url: str, workers: dict[str, WorkerProcess], victim: str
) -> None:
    """The caller talks on, so that the floor waits; meanwhile the old agent, or the one that is ready, dies."""
    survivor = "billing" if victim == "receptionist" else "receptionist"
    async with served(make_room, redis_url, workers) as call:
        await call.stand_by("billing")

        async def in_state(*states: str) -> bool:
            handoff = await call.room.handoffs.current()
            return handoff is not None and handoff.state in states

        async def begun() -> bool:
            return await in_state("offered", "claimed")

        async def ready() -> bool:
            return await in_state("ready")

        await call.caller.text("billing")
        await until(begun, "the handoff has begun")
        talking = asyncio.create_task(call.caller.say(" ".join(["one two three four"] * 5)))
        await until(ready, "billing is ready")
        os.kill(call.process(victim), signal.SIGKILL)
        killed = time.monotonic()
        await talking
        await call.held_by(survivor)
        await call.hears(survivor, since=killed, within=12)

        assert call.overlap("receptionist", "billing") == 0
