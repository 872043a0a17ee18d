"""A call that begins while Redis is away: one agent serves it alone, and never beside another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from coordination.dev.backend import BackendServer
from coordination.errors import StoreUnavailable
from coordination.livekit.record import SessionRecord
from tests.persistence.tenants import token_for
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import gathering

NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def backend() -> Iterator[BackendServer]:
    with BackendServer() as server:
        yield server


async def test_an_agent_alone_serves_the_call_without_coordination(
    make_room: RoomFactory, caplog: pytest.LogCaptureFixture
) -> None:
    before = REGISTRY.get_sample_value("baton_uncoordinated_calls_total") or 0.0
    async with gathering(await make_room(), NOWHERE) as team:
        receptionist = await team.join("receptionist", roles=("billing",))
        await eventually(lambda: team.caller.ears.hears(receptionist.identity, within=5.0), "it greets")
        await team.quiet()
        await team.caller.say("billing please")
        await eventually(lambda: receptionist.handed == 1, "the handoff was tried")

        assert receptionist.session.seat is None
        loud = [entry for entry in caplog.records if "WITHOUT coordination" in entry.getMessage()]
        assert [entry.levelname for entry in loud] == ["ERROR"]
        assert REGISTRY.get_sample_value("baton_uncoordinated_calls_total") == before + 1
        assert (
            receptionist.outcome == "The caller cannot be handed to 'billing': this session runs without coordination."
        )


@pytest.mark.parametrize("why", ["redis is away", "coordination is off"])
async def test_a_call_without_coordination_is_saved_by_its_job(
    make_room: RoomFactory, backend: BackendServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    for name, value in backend.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BATON_OUTBOX_FILE", str(tmp_path / "outbox.sqlite3"))
    live = await make_room(metadata=SessionRecord(user="ann").format())
    settings = {"coordination": "off"} if why == "coordination is off" else {}
    async with gathering(live, NOWHERE) as team:
        agent = await team.join("receptionist", settings=settings)
        await eventually(lambda: agent.said == ["hello from receptionist"], "it greets")
        await team.quiet()
        await team.caller.say("one two")
        await eventually(lambda: "receptionist heard one two" in agent.said, "it answers")
        await team.quiet()

    headers = {"Authorization": f"Bearer {backend.token}"}
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as client:
        rows = (await client.get(f"/v1/conversations/{live.sid}/messages")).json()["items"]
        record = (await client.get(f"/v1/sessions/{live.sid}")).json()
    assert [(row["speaker"], row["agent"], row["text"]) for row in rows] == [
        ("agent", agent.job.id, "hello from receptionist"),
        ("caller", agent.job.id, "one two"),
        ("agent", agent.job.id, "receptionist heard one two"),
    ]
    assert (record["messages"], record["participants"], record["user_id"]) == (3, 1, "ann")
    assert record["roles"] == ["receptionist"]


@pytest.mark.parametrize("why", ["redis is away", "coordination is off"])
async def test_such_a_call_is_saved_for_the_tenant_that_it_was_dispatched_for(
    make_room: RoomFactory, backend: BackendServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """The worker serves several, and has a token of each: it was saved with the worker's own."""
    token = await token_for(backend, "acme")
    for name, value in backend.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BATON_BACKEND_TOKENS", json.dumps({"acme": token}))
    monkeypatch.setenv("BATON_OUTBOX_FILE", str(tmp_path / "outbox.sqlite3"))
    live = await make_room()
    settings = {"coordination": "off"} if why == "coordination is off" else {}
    async with gathering(live, NOWHERE) as team:
        acme = {"baton": {"v": 1, "tenant": "acme"}}
        agent = await team.join("receptionist", settings=settings, metadata=acme)
        await eventually(lambda: agent.said == ["hello from receptionist"], "it greets")
        await team.quiet()

    found: dict[str, list[str]] = {}
    for whose, secret in (("acme", token), ("the worker's", backend.token)):
        headers = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=backend.url, headers=headers) as client:
            answer = await client.get(f"/v1/conversations/{live.sid}/messages")
            found[whose] = [row["text"] for row in answer.json()["items"]] if answer.is_success else []
    assert found == {"acme": ["hello from receptionist"], "the worker's": []}


async def test_an_agent_does_not_begin_beside_another_that_may_be_speaking(make_room: RoomFactory) -> None:
    async with gathering(await make_room(), NOWHERE) as team:
        await team.join("receptionist")
        with pytest.raises(StoreUnavailable):
            await team.join("billing")

        assert team.players["billing"].job.ended.is_set()


async def test_a_job_ends_where_calls_without_redis_are_not_wanted(make_room: RoomFactory) -> None:
    async with gathering(await make_room(), NOWHERE) as team:
        with pytest.raises(StoreUnavailable):
            await team.join("receptionist", settings={"start_without_redis": False})
