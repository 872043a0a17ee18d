"""A call with three agents in real processes, saved to the reference backend while it and they are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordination.coordinator import Coordinator
from coordination.dev.backend import BackendServer
from coordination.livekit.record import SessionRecord
from coordination.livekit.saving.leftovers import LOST
from coordination.settings import CoordinatorSettings
from tests.rooms.callers import calling
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer
from tests.rooms.test_handoff_workers import Call, until
from tests.rooms.test_takeover_workers import Fleet, replaced

ROLES = ("receptionist", "billing", "technical")
SAVED_WITHIN = 60.0


@pytest.fixture
def backend() -> Iterator[BackendServer]:
    with BackendServer() as server:
        yield server


@pytest.fixture
def fleet(livekit_server: LiveKitServer, redis_url: str, backend: BackendServer, tmp_path: Path) -> Iterator[Fleet]:
    environment = {**livekit_server.environment, **backend.environment, "BATON_REDIS_URL": redis_url}
    # Another prefix than the other modules': an outbox belongs to one backend.
    fleet = Fleet({**environment, "BATON_PREFIX": "saving"}, tmp_path)
    yield fleet
    fleet.close()


@dataclass(slots=True)
class Conversation:
    """What the caller says, and how long each answer takes to be heard."""

    call: Call
    said: list[str] = field(default_factory=list[str])
    waits: dict[str, float] = field(default_factory=dict[str, float])

    async def ask(self, words: str, *, of: str, name: str = "") -> None:
        """Returns when the answer has been heard to its end."""
        await self.call.caller.say(words)
        self.said.append(words)
        ended, ears = time.monotonic(), self.call.caller.ears
        await self.call.held_by(of)
        await self.call.hears(of, since=ended)
        first = ears.first_audible(self.call.identity(of), since=ended)
        self.waits[name or words] = (first or 0.0) - ended
        await eventually(lambda: not ears.hears(self.call.identity(of), within=0.4), f"{of} has answered", within=20)


@asynccontextmanager
async def known_caller(make_room: RoomFactory, redis_url: str, fleet: Fleet) -> AsyncIterator[Call]:
    live = await make_room(metadata=SessionRecord(user="ann").format())
    settings = CoordinatorSettings(redis_url=redis_url, prefix="saving")
    async with Coordinator.open(settings=settings) as coordinator, calling(live) as caller:
        call = Call(
            live, caller, coordinator.room(live.sid), {worker.role: worker for worker in fleet.workers.values()}
        )
        await call.dispatch("receptionist")
        await call.held_by("receptionist", within=30)
        await call.hears("receptionist", since=0.0)
        await eventually(lambda: not caller.ears.hears(call.identity("receptionist"), within=0.4), "it has greeted")
        yield call
        await call.room.close()


async def test_everything_is_in_the_database_once_and_in_order_whoever_is_killed(
    make_room: RoomFactory, redis_url: str, fleet: Fleet, backend: BackendServer
) -> None:
    fleet.start(*ROLES)
    async with known_caller(make_room, redis_url, fleet) as call:
        talk, agents = Conversation(call), [call.identity("receptionist")]
        await talk.ask("one two", of="receptionist", name="backend there")
        backend.pause()
        await talk.ask("three four", of="receptionist", name="backend hangs")
        await talk.ask("billing please", of="billing")
        agents.append(call.identity("billing"))
        backend.resume()
        backend.kill()
        await talk.ask("five six", of="billing", name="backend killed")
        await talk.ask("technical please", of="technical")
        agents.append(call.identity("technical"))
        await backend.start()

        await call.caller.say("delta")
        talk.said.append("delta")
        await call.hears("technical", since=time.monotonic())
        os.kill(call.process("technical"), signal.SIGKILL)
        await replaced(call, agents[-1], "technical")
        agents.append(call.identity("technical"))
        await call.hears("technical", since=time.monotonic(), within=20)
        backend.kill()
        await call.caller.say("more please")
        talk.said.append("more please")
        await call.hears("technical", since=time.monotonic(), within=20)
        await asyncio.sleep(1.0)
        for worker in fleet.workers.values():
            worker.kill()
        ears = {agent: call.caller.ears.seconds(agent) for agent in agents}
        sid = call.live.sid
        # A caller who stays is served by the next worker, and then the call is not over.
        await call.caller.room.disconnect()

    await backend.start()
    fleet.start("receptionist-2")
    rows, record = await saved(backend, sid)

    print("answers heard after", {name: f"{wait:.2f} s" for name, wait in talk.waits.items()})
    assert [row["text"] for row in rows if row["speaker"] == "caller"] == talk.said
    assert list(dict.fromkeys(f"agent-{row['agent']}" for row in rows if row["speaker"] == "agent")) == agents
    assert [row["fence"] for row in rows] == sorted(row["fence"] for row in rows)
    assert len({(row["agent"], row["at"]) for row in rows}) == len(rows), "nothing is there twice"
    for agent, seconds in ears.items():
        played = sum(row["played_seconds"] or 0.0 for row in rows if f"agent-{row['agent']}" == agent)
        assert played == pytest.approx(seconds, abs=1.5), f"{agent} was heard for {seconds:.1f} s"
    assert (record["reason"], record["messages"], record["handoffs"]) == (LOST, len(rows), 2)
    assert (record["roles"], record["participants"], record["user_id"]) == (list(ROLES), 1, "ann")


async def saved(backend: BackendServer, sid: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and record, once the record is there; it is saved behind all turns."""
    headers = {"Authorization": f"Bearer {backend.token}"}
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as client:

        async def ended() -> bool:
            return (await client.get(f"/v1/sessions/{sid}")).status_code == 200

        await until(ended, "the record is saved", within=SAVED_WITHIN)
        rows = (await client.get(f"/v1/conversations/{sid}/messages", params={"limit": 200})).json()["items"]
        return rows, (await client.get(f"/v1/sessions/{sid}")).json()
