"""What an operator asks for and sets: analytics, retention, health, settings."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from backend.database import Database
from backend.errors import InvalidSettings
from backend.models import Conversation, Event, IdempotencyKey, Session
from backend.models.base import now
from backend.retention import prune
from backend.settings import BackendSettings
from tests.backend.rig import Rig, key

PERIOD = {"from": "2026-11-23", "to": "2026-11-25"}


async def _calls(client: httpx.AsyncClient) -> None:
    """Two calls on the 24th, UTC, of which one began on the 25th where it was made; one that still runs."""
    sessions: list[dict[str, Any]] = [
        {"started_at": "2026-11-24T10:00:00Z", "ended_at": "2026-11-24T10:01:00Z", "handoffs": 2},
        {"started_at": "2026-11-25T00:30:00+01:00", "ended_at": "2026-11-25T01:00:00+01:00", "handoffs": 1},
        {"started_at": "2026-11-25T12:00:00Z"},
    ]
    for number, body in enumerate(sessions):
        assert (await client.put(f"/v1/sessions/s{number}", json=body)).status_code == 200
    for role, interrupted in (("billing", True), ("billing", False), ("technical", False)):
        body = {
            "role": role,
            "interrupted": interrupted,
            "started_at": "2026-11-24T10:00:30Z",
            "messages": [{"speaker": "agent", "text": "well"}],
        }
        await client.post("/v1/conversations/c1/turns", json=body, headers=key())


async def test_calls_are_counted_by_day_and_tenant(rig: Rig, client: httpx.AsyncClient) -> None:
    await _calls(client)
    await _calls(await rig.client("other"))

    days = (await client.get("/v1/analytics/calls", params=PERIOD)).json()["days"]

    empty = {"calls": 0, "ended": 0, "seconds": 0, "longest_seconds": 0, "handoffs": 0, "turns": 0}
    assert days == [
        {"day": "2026-11-23"} | empty,
        {
            "day": "2026-11-24",
            "calls": 2,
            "ended": 2,
            "seconds": 1860,
            "longest_seconds": 1800,
            "handoffs": 3,
            "turns": 3,
        },
        {"day": "2026-11-25"} | empty | {"calls": 1},
    ]


async def test_turns_are_counted_by_day_and_role(client: httpx.AsyncClient) -> None:
    await _calls(client)

    days = (await client.get("/v1/analytics/turns", params=PERIOD)).json()["days"]

    assert days == [
        {"day": "2026-11-24", "role": "billing", "turns": 2, "interrupted": 1},
        {"day": "2026-11-24", "role": "technical", "turns": 1, "interrupted": 0},
    ]


async def test_the_csv_says_the_same(client: httpx.AsyncClient) -> None:
    await _calls(client)

    answer = await client.get("/v1/analytics/calls.csv", params=PERIOD)

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert [(row["day"], row["calls"], row["seconds"]) for row in rows] == [
        ("2026-11-23", "0", "0.0"),
        ("2026-11-24", "2", "1860.0"),
        ("2026-11-25", "1", "0.0"),
    ]


@pytest.mark.parametrize("period", [{"from": "2026-11-25", "to": "2026-11-24"}, {"from": "2020-01-01"}])
async def test_a_period_that_is_none_or_too_long_is_refused(client: httpx.AsyncClient, period: dict[str, str]) -> None:
    assert (await client.get("/v1/analytics/calls", params=period)).status_code == 422


async def test_what_is_past_its_retention_goes_and_the_rest_stays(rig: Rig, client: httpx.AsyncClient) -> None:
    long_ago = now() - timedelta(days=40)
    for name in ("old", "new"):
        await client.put(f"/v1/sessions/{name}", json={"started_at": "2026-11-24T10:00:00Z", "conversation_id": name})
        body = {"speaker": "caller", "text": name}
        await client.post(f"/v1/conversations/{name}/messages", json=body, headers=key(name))
        event = {"id": name, "kind": "grant", "at": "2026-11-24T10:00:00Z"}
        await client.post("/v1/events", json={"events": [event]})
    async with rig.parts.database.writing() as session:
        await session.execute(update(Conversation).where(Conversation.id == "old").values(created_at=long_ago))
        await session.execute(update(Session).where(Session.id == "old").values(saved_at=long_ago))
        await session.execute(update(Event).where(Event.id == "old").values(saved_at=long_ago))
        await session.execute(update(IdempotencyKey).where(IdempotencyKey.key == "old").values(at=long_ago))

    keeping = await prune(rig.parts.database, rig.settings)
    deleted = await prune(rig.parts.database, rig.settings.model_copy(update={"retention_days": 30}))

    assert keeping == {"idempotency_keys": 1}
    assert deleted == {"idempotency_keys": 0, "conversations": 1, "sessions": 1, "events": 1}
    assert (await client.get("/v1/conversations/old")).status_code == 404
    assert (await client.get("/v1/messages/recent?conversation_id=new")).json()["messages"][0]["text"] == "new"
    assert [it["id"] for it in (await client.get("/v1/events")).json()["items"]] == ["new"]


async def test_a_database_that_is_away_is_told_by_readiness_alone(tmp_path: Path) -> None:
    from backend.app import create_app

    gone = BackendSettings(database_url=f"sqlite:///{tmp_path}/no/such/folder/file.db", prune_hours=0)
    app = create_app(gone)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://backend") as client:
        live, ready = await client.get("/health/live"), await client.get("/health/ready")
        asked = await client.get("/v1/users", headers={"Authorization": f"Bearer bt_{'0' * 16}_{'x' * 43}"})
    await app.state.parts.database.close()

    assert (live.status_code, ready.status_code, asked.status_code) == (200, 503, 503)


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("sqlite:///x.db", "sqlite+aiosqlite"),
        ("calls.db", "sqlite+aiosqlite"),
        ("postgres://u:p@h/d", "postgresql+asyncpg"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg"),
    ],
)
def test_a_url_gets_the_driver_that_fits(given: str, driver: str) -> None:
    assert BackendSettings(database_url=given).engine_url.drivername == driver


def test_faults_of_the_settings_are_told_at_once_with_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_POOL_SIZE", "0")
    monkeypatch.setenv("BACKEND_WEBHOOK_ATTEMPTS", "many")

    with pytest.raises(InvalidSettings, match=r"BACKEND_POOL_SIZE.*BACKEND_WEBHOOK_ATTEMPTS"):
        BackendSettings()
    monkeypatch.setenv("BACKEND_POOL_SIZE", "1")
    monkeypatch.setenv("BACKEND_WEBHOOK_ATTEMPTS", "1")
    with pytest.raises(InvalidSettings, match="sqlite and postgresql"):
        BackendSettings(database_url="mysql://h/d")


async def test_sqlite_is_safe_against_a_crash(tmp_path: Path) -> None:
    """Written ahead, and on the disk before a write is answered."""
    database = Database(BackendSettings(database_url=f"{tmp_path}/x.db"))
    async with database.engine.connect() as connection:
        mode = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
        full = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    await database.close()

    assert (mode, full) == ("wal", 2)
