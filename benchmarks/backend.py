"""The reference backend on PostgreSQL with a million messages: how long an agent waits for the last ten of a call.

Asked over HTTP on loopback, of the service as a process of its own, one request at a time, of one conversation after
another.
"""

from __future__ import annotations

import random
import time

import asyncpg
import httpx

from backend.database import Database
from backend.migrations import upgrade
from backend.settings import BackendSettings
from benchmarks.rows import Row, Spread
from coordination.dev.backend import BackendServer
from coordination.dev.postgres import EmbeddedPostgres

CONVERSATIONS = 10_000
EACH = 100
REQUESTS = 2_000
TURNS = 500
WARM = 200
TARGET_MS = 10.0

_CONVERSATIONS = """
INSERT INTO conversations (tenant, id, room, created_at, messages, turns, fence)
SELECT 'acme', 'c' || n, 'room' || n, now(), $2::bigint, 0, 1 FROM generate_series(1, $1::bigint) AS n
"""
_MESSAGES = """
INSERT INTO messages (tenant, conversation_id, sequence, fence, speaker, text, at, interrupted, saved_at)
SELECT 'acme', 'c' || n, m, 1, CASE m % 2 WHEN 0 THEN 'agent' ELSE 'caller' END, repeat('word ', 16),
       now(), false, now()
FROM generate_series(1, $2::bigint) AS m, generate_series(1, $1::bigint) AS n
"""


async def measure(_: str) -> list[Row]:
    """Needs no Redis; the URL that every part is given is not used."""
    async with EmbeddedPostgres() as server:
        database = Database(BackendSettings(database_url=server.url()))
        await upgrade(database)
        await database.close()
        stored = await _fill(server.url())
        async with BackendServer(tenant="acme", database_url=server.url()) as backend:
            headers = {"Authorization": f"Bearer {backend.token}"}
            async with httpx.AsyncClient(base_url=backend.url, headers=headers) as client:
                by_id = await _recent(client, "conversation_id", "c")
                by_room = await _recent(client, "room", "room")
                turns = await _save(client)
    notes = f"{stored:,} messages in {CONVERSATIONS:,} conversations, PostgreSQL, over HTTP"
    return [
        Row(
            name=f"the last 10 messages, by {what}",
            target=f"p99 ≤ {TARGET_MS:g} ms",
            measured=spread.text("ms"),
            ok=spread.p99 <= TARGET_MS,
            notes=notes,
        )
        for what, spread in (("conversation", by_id), ("room", by_room))
    ] + [Row(name="a turn saved by the backend", target="reported", measured=turns.text("ms"), ok=None, notes=notes)]


async def _fill(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_CONVERSATIONS, CONVERSATIONS, EACH)
        await connection.execute(_MESSAGES, CONVERSATIONS, EACH)
        await connection.execute("ANALYZE")
        return await connection.fetchval("SELECT count(*) FROM messages")
    finally:
        await connection.close()


async def _recent(client: httpx.AsyncClient, parameter: str, prefix: str) -> Spread:
    took: list[float] = []
    for number in range(WARM + REQUESTS):
        query = {parameter: f"{prefix}{random.randint(1, CONVERSATIONS)}"}
        began = time.perf_counter()
        answer = await client.get("/v1/messages/recent", params=query)
        if number >= WARM:
            took.append((time.perf_counter() - began) * 1000)
        assert len(answer.json()["messages"]) == 10
    return Spread.of(took)


async def _save(client: httpx.AsyncClient) -> Spread:
    took: list[float] = []
    for number in range(TURNS):
        body = {
            "role": "billing",
            "fence": 2,
            "messages": [{"speaker": "caller", "text": "How much is it?"}, {"speaker": "agent", "text": "64 euros."}],
        }
        headers = {"Idempotency-Key": f"turn-{number}"}
        began = time.perf_counter()
        answer = await client.post(f"/v1/conversations/c{number + 1}/turns", json=body, headers=headers)
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 201
    return Spread.of(took)
