"""A backend that misbehaves in the middle of a call: nothing of it is heard, and nothing of the call is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordination.coordinator import Coordinator
from coordination.dev.backend import BackendServer
from coordination.ids import DEFAULT_TENANT
from coordination.livekit.record import SessionRecord
from coordination.livekit.saving.leftovers import Round
from coordination.persistence import PersistenceSettings
from coordination.persistence.host import deliver_file
from coordination.persistence.outbox import drain
from coordination.settings import CoordinatorSettings
from tests.persistence.gateway import FAULTS, Gateway, gateway
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import Player, Team, gathering
from tests.rooms.test_handoff_workers import until

NOTICEABLE = 2.0
"""Seconds by which a reply that waited for the backend would come later than the others: BATON_BACKEND_TIMEOUT."""


@pytest.fixture(scope="module")
def backend() -> Iterator[BackendServer]:
    with BackendServer() as server:
        yield server


@pytest.fixture
async def between(backend: BackendServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """What the agents take for the backend."""
    monkeypatch.setattr(drain, "LAST_RETRY", timedelta(seconds=1))
    async with gateway(backend.url) as between:
        for name, value in {**backend.environment, "BATON_BACKEND_URL": between.url}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("BATON_OUTBOX_FILE", str(tmp_path / "outbox.sqlite3"))
        yield between


@pytest.mark.parametrize("coordination", ["on", "off"])
async def test_every_fault_of_the_backend_in_mid_call_is_unheard_and_loses_nothing(
    make_room: RoomFactory, redis_url: str, backend: BackendServer, between: Gateway, coordination: str
) -> None:
    """With coordination the outbox is in Redis, and a handoff falls into the faults; without, it is a file."""
    live = await make_room(metadata=SessionRecord(user="ann").format())
    settings = {"coordination": coordination, "prefix": "faults", "caller_grace": timedelta(seconds=0.2)}
    said: list[str] = []
    waits: dict[str, float] = {}
    async with gathering(live, redis_url) as team:
        speaker = await team.join("receptionist", roles=("billing",), settings=settings)
        if coordination == "on":
            await team.join("billing", settings=settings)
        await eventually(lambda: speaker.said == ["hello from receptionist"], "it greets")
        await team.quiet()
        for fault, words in zip(("", *FAULTS), ("one", "two", "three", "four", "five", "six"), strict=True):
            between.fault = fault
            if fault == "garbage" and coordination == "on":
                await team.caller.say("billing please")
                said.append("billing please")
                speaker = await team.holder("billing")
                await team.quiet()
            waits[fault] = await answered(team, speaker, words)
            said.append(words)
            if fault:
                await eventually(lambda fault=fault: between.answered[fault] > 0, f"{fault} was met", within=15)
        between.fault = ""
        agents = {player.job.id: player.said for player in team.players.values()}
        await team.caller.room.disconnect()
        if coordination == "on":
            await eventually(lambda: all(each.job.ended.is_set() for each in team.players.values()), "the call ends")

    async with worker(redis_url):
        rows, record = await saved(backend, live.sid)
        told = await told_of(backend, live.name)
    print("answers heard after", {fault or "healthy": f"{wait:.2f} s" for fault, wait in waits.items()})
    assert max(waits.values()) < waits[""] + NOTICEABLE
    assert [row["text"] for row in rows if row["speaker"] == "caller"] == said
    assert {
        agent: [row["text"] for row in rows if row["agent"] == agent and row["speaker"] == "agent"] for agent in agents
    } == agents
    assert [row["fence"] for row in rows] == sorted(row["fence"] for row in rows)
    assert (record["messages"], record["participants"], record["user_id"]) == (len(rows), 1, "ann")
    assert record["duration_seconds"] > sum(waits.values())
    handoff = [("call.handed_off", "billing")] if coordination == "on" else []
    assert told == [("call.started", "receptionist"), *handoff, ("call.ended", None)]


@pytest.mark.parametrize("coordination", ["on", "off"])
async def test_what_nobody_would_say_is_saved_in_part_rather_than_not_at_all(
    make_room: RoomFactory, redis_url: str, backend: BackendServer, between: Gateway, coordination: str
) -> None:
    """A pasted text that is longer than a turn may be, with a NUL in it; the agent repeats it."""
    pasted = "paste\x00" + "ü" * 20_000
    live = await make_room()
    settings = {"coordination": coordination, "prefix": "faults", "caller_grace": timedelta(seconds=0.2)}
    async with gathering(live, redis_url) as team:
        agent = await team.join("receptionist", settings=settings)
        await eventually(lambda: agent.said, "it greets")
        await team.quiet()
        await team.caller.text(pasted)
        await eventually(lambda: len(agent.said) == 2, "it answers")
        await team.quiet()
        await team.caller.room.disconnect()
        if coordination == "on":
            await eventually(agent.job.ended.is_set, "the call ends")

    async with worker(redis_url):
        rows, _ = await saved(backend, live.sid)
    _, question, answer = [row["text"] for row in rows]
    assert question.startswith("paste\ufffdüüü")
    assert answer.startswith("receptionist heard paste\ufffdüüü")
    for text in (question, answer):
        assert text.endswith("ü…")
        assert 16_300 < len(text.encode()) <= 16 * 1024


async def answered(team: Team, player: Player, words: str) -> float:
    """Seconds from the caller's last sound until the answer is heard; returns when it has been heard to its end."""
    await team.caller.say(words)
    ended, ears = time.monotonic(), team.caller.ears
    await eventually(lambda: f"{player.role} heard {words}" in player.said, f"{words} is answered")
    await eventually(lambda: ears.first_audible(player.identity, since=ended), "it is heard")
    await team.quiet()
    return (ears.first_audible(player.identity, since=ended) or 0.0) - ended


@asynccontextmanager
async def worker(redis_url: str) -> AsyncIterator[None]:
    """What a worker does beside its jobs: what they could not deliver before they ended is delivered."""
    settings = CoordinatorSettings(redis_url=redis_url, prefix="faults")
    async with Coordinator.open(settings=settings) as coordinator, AsyncExitStack() as parts:
        await Round(coordinator, PersistenceSettings(), parts).go({DEFAULT_TENANT})
        file = asyncio.create_task(deliver_file(PersistenceSettings()))
        try:
            yield
        finally:
            file.cancel()
            await asyncio.gather(file, return_exceptions=True)


async def told_of(backend: BackendServer, room: str) -> list[tuple[str, str | None]]:
    """What other services read in the backend's feed: each event of the call, with the role that it is of."""
    headers = {"Authorization": f"Bearer {backend.token}"}
    found: list[tuple[str, str | None]] = []
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as client:

        async def ended() -> bool:
            feed = (await client.get("/v1/events", params={"room": room, "limit": 200})).json()["items"]
            found[:] = [(event["kind"], event["role"]) for event in feed]
            return bool(found) and found[-1][0] == "call.ended"

        await until(ended, "other services are told of the end", within=20)
    return found


async def saved(backend: BackendServer, sid: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and record, once the record is there; it is saved behind all turns."""
    headers = {"Authorization": f"Bearer {backend.token}"}
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as client:

        async def ended() -> bool:
            return (await client.get(f"/v1/sessions/{sid}")).status_code == 200

        await until(ended, "the record is saved", within=30)
        rows = (await client.get(f"/v1/conversations/{sid}/messages", params={"limit": 200})).json()["items"]
        return rows, (await client.get(f"/v1/sessions/{sid}")).json()
