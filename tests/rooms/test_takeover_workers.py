"""A call whose agent or worker dies, hangs or drains: real workers, and a caller who listens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from coordination.coordinator import Coordinator
from coordination.room.turns import Speaker
from coordination.settings import CoordinatorSettings
from tests.dev.test_cli_commands import baton
from tests.rooms.callers import calling
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer
from tests.rooms.test_handoff_workers import Call, until
from tests.rooms.workers import STORY, WorkerProcess, wait_until_ready

BOUND = 20.0
A_WHILE = 3.0
"""Longer than any suspicion takes."""


class Fleet:
    """Workers by name; `start` them, and end what is left of them."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment, self._folder = environment, folder
        self.workers: dict[str, WorkerProcess] = {}

    def start(self, *names: str, dies_at: str = "", drains_for: str = "3600", **settings: str) -> None:
        """`billing-2` is a second worker of the role billing. `settings` are Baton's, as in its environment."""
        environment = {**self._environment, **{f"BATON_{name.upper()}": value for name, value in settings.items()}}
        environment["TEST_DRAINS_FOR"] = drains_for
        started = [
            WorkerProcess(
                role=name.partition("-")[0], name=name, environment=environment, folder=self._folder, dies_at=dies_at
            )
            for name in names
        ]
        for worker in started:
            self.workers[worker.name] = worker.start()
        wait_until_ready(started)

    def of(self, role: str, room: str) -> WorkerProcess:
        """The worker that serves the role in a room."""
        return next(each for each in self.workers.values() if each.role == role and each.serves(room))

    def close(self) -> None:
        for worker in self.workers.values():
            worker.stop()


@pytest.fixture
def fleet(livekit_server: LiveKitServer, redis_url: str, tmp_path: Path):
    fleet = Fleet({**livekit_server.environment, "BATON_REDIS_URL": redis_url}, tmp_path)
    yield fleet
    fleet.close()


@asynccontextmanager
async def answered(make_room: RoomFactory, redis_url: str, fleet: Fleet) -> AsyncIterator[Call]:
    """A call that a receptionist has answered; the watch over the fleet has settled."""
    live = await make_room()
    coordinator = await Coordinator.open(settings=CoordinatorSettings(redis_url=redis_url))
    try:
        async with calling(live) as caller:
            one_of_each = {worker.role: worker for worker in fleet.workers.values()}
            call = Call(live, caller, coordinator.room(live.sid), one_of_each)
            await call.dispatch("receptionist")
            await call.held_by("receptionist", within=30)
            await call.hears("receptionist", since=0.0)
            await eventually(
                lambda: not caller.ears.hears(call.identity("receptionist"), within=0.3), "the greeting is over"
            )
            await asyncio.sleep(1.5)
            yield call
            await call.room.close()
    finally:
        await coordinator.close()


async def dispatched(call: Call) -> list[str]:
    """The roles that were dispatched; what LiveKit dispatches by itself, for agents without a name, does not count."""
    listed = await call.live.api.agent_dispatch.list_dispatch(call.live.name)
    return [each.agent_name for each in listed if each.agent_name]


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def overlap_of(call: Call, *identities: str) -> float:
    slots = [{int(frame.at * 100) for frame in call.caller.ears.audible(identity)} for identity in identities]
    return len(set.intersection(*slots)) / 100


async def replaced(call: Call, old: str, role: str) -> None:
    """Returns when another agent of the role has the floor."""

    async def there() -> bool:
        return await call.holder() == role and call.identity(role) != old

    await until(there, f"another {role} has the floor", within=BOUND)


def sentence(death: Callable[[Fleet, Call], None], reason: str, name: str):
    return pytest.param(death, reason, id=name)


def kill_job(fleet: Fleet, call: Call) -> None:
    os.kill(call.process("receptionist"), signal.SIGKILL)


def kill_worker(fleet: Fleet, call: Call) -> None:
    fleet.of("receptionist", call.live.name).kill()


def kill_parent_only(fleet: Fleet, call: Call) -> None:
    os.kill(fleet.of("receptionist", call.live.name).pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        sentence(kill_job, "its process ended", "job"),
        sentence(kill_worker, "its worker is dead", "host"),
        sentence(kill_parent_only, "its worker is dead", "parent"),
    ],
)
async def test_a_sentence_that_a_death_cut_off_is_finished_by_another_worker(
    make_room: RoomFactory, redis_url: str, fleet: Fleet, death: Callable[[Fleet, Call], None], reason: str
) -> None:
    fleet.start("receptionist-1", "receptionist-2", apologise_after="60")
    async with answered(make_room, redis_url, fleet) as call:
        await call.caller.say("delta")
        await call.hears("receptionist", since=time.monotonic())
        await asyncio.sleep(2.0)
        old = call.identity("receptionist")

        killed = time.monotonic()
        death(fleet, call)
        await replaced(call, old, "receptionist")
        await call.hears("receptionist", since=killed)
        heard = call.caller.ears.first_audible(call.identity("receptionist"), since=killed)
        print(f"heard after {heard - killed:.2f} s" if heard else "not heard")

        async def finished() -> bool:
            said = await call.said_by("receptionist")
            return len(said) > 2 and said[-1].endswith("The end")

        await until(finished, "the rest is said")
        said = await call.said_by("receptionist")
        assert said[:2] == ["hello from receptionist", STORY]
        assert said[2] != STORY, "what was heard is not said again from the beginning"
        assert STORY.endswith(said[2]), "and nothing else is said: the silence was short"
        assert len(said) == 3
        assert await overlap_of(call, old, call.identity("receptionist")) == 0
        assert old not in await call.live.identities(), "the dead agent was silenced"
        dispatches = await dispatched(call)
        assert len(dispatches) == 2, "one for the call, one for the lost agent"
        takeovers = [event.reason for event in await call.room.events.read() if event.kind == "takeover"]
        assert takeovers == [reason], "its parent knows of a job's end, the watch of a worker's"


async def test_a_question_that_was_left_unanswered_is_answered(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    fleet.start("receptionist-1", dies_at="answer")
    async with answered(make_room, redis_url, fleet) as call:
        fleet.start("receptionist-2", apologise_after="0.1", apology="Sorry.")
        old = call.identity("receptionist")
        await call.caller.say("invoice line")
        await replaced(call, old, "receptionist")

        async def answer() -> bool:
            return "Sorry. receptionist heard invoice line" in await call.said_by("receptionist")

        await until(answer, "the question is answered, after a word for the wait")
        assert len(await call.said_by("receptionist")) == 2, "the greeting and the answer"
        assert [turn.text for turn in await call.room.turns.read() if turn.speaker is Speaker.CALLER] == [
            "invoice line"
        ]


async def test_an_agent_that_hangs_is_replaced_and_ends_when_it_wakes_up(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    fleet.start("receptionist-1", "receptionist-2")
    async with answered(make_room, redis_url, fleet) as call:
        await call.caller.say("delta")
        await call.hears("receptionist", since=time.monotonic())
        old, sleeper = call.identity("receptionist"), call.process("receptionist")

        os.kill(sleeper, signal.SIGSTOP)
        try:
            await replaced(call, old, "receptionist")
            await call.hears("receptionist", since=time.monotonic())
        finally:
            os.kill(sleeper, signal.SIGCONT)
        woke = time.monotonic()

        async def gone() -> bool:
            return old not in await call.live.identities() and not _exists(sleeper)

        await until(gone, "the agent that was replaced ends by itself", within=BOUND)
        assert call.caller.ears.seconds(old, since=woke + 0.2) == 0
        assert (await call.said_by("receptionist"))[-1].startswith("Sorry for the pause."), "the silence was long"


async def test_a_spare_of_the_role_takes_the_call_without_a_dispatch(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    fleet.start("receptionist-1")
    async with answered(make_room, redis_url, fleet) as call:
        fleet.start("receptionist-2")
        await call.caller.say("delta")
        await call.hears("receptionist", since=time.monotonic())
        old, victim = call.identity("receptionist"), call.process("receptionist")
        await call.stand_by("receptionist")

        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        await replaced(call, old, "receptionist")
        await call.hears("receptionist", since=killed)
        assert len(await dispatched(call)) == 2, "the call's, and the spare's"
        assert await overlap_of(call, old, call.identity("receptionist")) == 0


async def test_a_call_in_which_nothing_was_open_goes_on_without_a_word(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    fleet.start("receptionist-1", "receptionist-2", apologise_after="0.1")
    async with answered(make_room, redis_url, fleet) as call:
        old = call.identity("receptionist")
        kill_job(fleet, call)
        await replaced(call, old, "receptionist")
        await call.caller.say("nine ten")

        async def answer() -> bool:
            return "receptionist heard nine ten" in await call.said_by("receptionist")

        await until(answer, "the caller is answered")
        assert await call.said_by("receptionist") == ["hello from receptionist", "receptionist heard nine ten"]


async def test_a_call_that_nobody_can_continue_is_given_up_with_a_word_to_the_caller(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    settings = {"takeover_within": "1", "takeover_dispatches": "2"}
    fleet.start("receptionist-1", **settings)
    fleet.start("billing", **settings)
    async with answered(make_room, redis_url, fleet) as call:
        await call.stand_by("billing")
        killed = time.monotonic()
        fleet.of("receptionist", call.live.name).kill()
        await call.held_by("billing", within=BOUND)
        await call.hears("billing", since=killed)

        async def told() -> bool:
            return await call.said_by("billing") == ["billing apologises"]

        await until(told, "the caller is told")
        kinds = [event.kind for event in await call.room.events.read()]
        assert kinds.count("takeover") == 2
        assert "give_up" in kinds
        dispatches = await dispatched(call)
        assert len(dispatches) == 4, "the call's, the standby's, and two attempts"
        assert 'baton_takeovers_total{how="given up"} 1.0' in fleet.workers["billing"].metrics()


async def test_all_subscriptions_killed_and_redis_restarted_silence_nobody(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    fleet.start("receptionist-1", "receptionist-2")
    async with answered(make_room, redis_url, fleet) as call:
        before = call.identity("receptionist")
        redis = Redis.from_url(redis_url)
        await redis.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB")
        await asyncio.sleep(A_WHILE)
        await redis.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
        await asyncio.sleep(A_WHILE)
        await redis.aclose()

        await call.caller.say("one two")

        async def answer() -> bool:
            return "receptionist heard one two" in await call.said_by("receptionist")

        await until(answer, "the same agent answers")
        assert call.identity("receptionist") == before
        assert before in await call.live.identities()
        assert len(await dispatched(call)) == 1


async def test_a_worker_that_is_told_to_end_moves_its_call_and_then_ends(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    fleet.start("receptionist-1")
    async with answered(make_room, redis_url, fleet) as call:
        fleet.start("receptionist-2")
        await call.caller.say("delta")
        await call.hears("receptionist", since=time.monotonic())
        old, leaving = call.identity("receptionist"), fleet.workers["receptionist-1"]

        os.kill(leaving.pid, signal.SIGTERM)
        await asyncio.sleep(0.3)
        os.kill(leaving.pid, signal.SIGTERM)  # An impatient supervisor: LiveKit alone would drop the call now.
        await replaced(call, old, "receptionist")
        assert await asyncio.to_thread(leaving.wait, within=30) == 0

        await call.caller.say("three four")

        async def answer() -> bool:
            return "receptionist heard three four" in await call.said_by("receptionist")

        await until(answer, "the new agent answers")
        assert await call.said_by("receptionist") == ["hello from receptionist", STORY, "receptionist heard three four"]
        assert await overlap_of(call, old, call.identity("receptionist")) == 0


async def test_a_worker_with_nowhere_to_move_its_call_keeps_it(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    fleet.start("receptionist-1", handoff_deadline="1")
    async with answered(make_room, redis_url, fleet) as call:
        old, leaving = call.identity("receptionist"), fleet.workers["receptionist-1"]
        os.kill(leaving.pid, signal.SIGTERM)
        await asyncio.sleep(2.0)
        await call.caller.say("five six")

        async def answer() -> bool:
            return "receptionist heard five six" in await call.said_by("receptionist")

        await until(answer, "the old agent goes on")
        fleet.start("receptionist-2")
        await replaced(call, old, "receptionist")
        assert await asyncio.to_thread(leaving.wait, within=30) == 0


async def test_a_call_that_could_not_be_moved_within_the_drain_timeout_goes_on_with_the_next_worker(
    make_room: RoomFactory, redis_url: str, fleet: Fleet
) -> None:
    """A drain of a benchmark found this: the job left in good order, so nobody took its call for lost."""
    fleet.start("receptionist-1", drains_for="2")
    async with answered(make_room, redis_url, fleet) as call:
        await call.caller.say("delta")
        await call.hears("receptionist", since=time.monotonic())
        old, leaving = call.identity("receptionist"), fleet.workers["receptionist-1"]
        os.kill(leaving.pid, signal.SIGTERM)
        assert await asyncio.to_thread(leaving.wait, within=30) == 0
        assert await call.holder() is None
        assert old not in await call.live.identities()

        fleet.start("receptionist-2")
        await replaced(call, old, "receptionist")

        async def finished() -> bool:
            return (await call.said_by("receptionist"))[-1].endswith("The end")

        await until(finished, "the sentence that was cut off is finished")
        agents = [identity for identity in await call.live.identities() if identity.startswith("agent-")]
        assert agents == [call.identity("receptionist")]
        sent_for = [event for event in await call.room.events.read() if event.kind == "takeover"]
        assert len(sent_for) == 1, "a dispatch that reaches nobody costs the caller three seconds"


async def test_an_operator_moves_the_call_of_a_room_of_one_agent_and_of_a_worker(
    make_room: RoomFactory, redis_url: str, fleet: Fleet, livekit_server: LiveKitServer
) -> None:
    fleet.start("receptionist-1", "receptionist-2")
    settings = {**livekit_server.environment, "BATON_REDIS_URL": redis_url}

    async def moved(call: Call, *drain: str) -> None:
        """Returns when another agent has the call, and the old one has left."""
        old = call.identity("receptionist")
        answer = await baton("agents", "drain", *drain, **settings)
        assert answer.status == 0, answer.complaint
        await replaced(call, old, "receptionist")
        await until(lambda: gone(call, old), "the old agent has left")
        assert await overlap_of(call, old, call.identity("receptionist")) == 0

    async def gone(call: Call, identity: str) -> bool:
        return identity not in await call.live.identities()

    async with answered(make_room, redis_url, fleet) as call:
        await moved(call, call.live.name)
        await moved(call, call.live.name, "--agent", call.identity("receptionist").removeprefix("agent-"))
        listed = json.loads((await baton("workers", "--json", **settings)).output)
        (worker,) = [each["worker"] for each in listed if each["agents"]]
        before = fleet.of("receptionist", call.live.name)
        await moved(call, "--worker", worker)
        assert fleet.of("receptionist", call.live.name) is not before

        await call.caller.say("seven eight")

        async def answer() -> bool:
            return "receptionist heard seven eight" in await call.said_by("receptionist")

        await until(answer, "the agent that has the call now answers")
        assert await call.said_by("receptionist") == ["hello from receptionist", "receptionist heard seven eight"]
        assert "takeover" not in [event.kind for event in await call.room.events.read()], "no agent was lost"
