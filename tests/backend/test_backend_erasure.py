"""What is known about a user is deleted as a whole, stays deleted, and others are told."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from sqlalchemy import select

from backend.models import Base, Erasure
from tests.backend.rig import Rig, key

SECRET = "what-only-ada-knows"


async def _fill(client: httpx.AsyncClient, user: str = "ada", secret: str = SECRET, talk: str = "c1") -> None:
    """A user with something in every table that can hold it."""
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", f"/v1/users/{user}", {"name": secret, "preferences": {"note": secret}}),
        ("POST", f"/v1/conversations/{talk}/messages", {"speaker": "caller", "text": secret, "user_id": user}),
        (
            "POST",
            f"/v1/conversations/{talk}/turns",
            {"messages": [{"speaker": "agent", "text": secret}], "room": f"room-{talk}"},
        ),
        (
            "PUT",
            f"/v1/sessions/s-{talk}",
            {
                "started_at": "2026-11-24T10:00:00Z",
                "user_id": user,
                "conversation_id": talk,
                "details": {"note": secret},
            },
        ),
        ("PUT", f"/v1/files/f-{talk}", {"name": secret, "media_type": "audio/wav", "url": "s3://a/b", "user_id": user}),
        (
            "PUT",
            f"/v1/invoices/i-{talk}",
            {
                "user_id": user,
                "issued_on": "2026-11-01",
                "due_on": "2026-12-01",
                "items": [{"text": secret, "cents": 1}],
            },
        ),
        ("POST", "/v1/tickets", {"kind": "refund", "subject": secret, "user_id": user}),
        ("POST", "/v1/tickets", {"kind": "visit", "subject": secret, "conversation_id": talk}),
    ]
    for method, path, body in requests:
        answer = await client.request(method, path, json=body, headers=key())
        assert answer.status_code in (200, 201), answer.text
    event = {"id": f"e-{talk}", "kind": "grant", "at": "2026-11-24T10:00:00Z", "conversation_id": talk}
    await client.post("/v1/events", json={"events": [event | {"data": {"note": secret}}]})


async def _everything(rig: Rig) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    found: dict[str, list[str]] = {}
    async with rig.parts.database.reading() as session:
        for table in Base.metadata.sorted_tables:
            found[table.name] = [str(tuple(row)) for row in await session.execute(select(table))]
    return found


async def test_nothing_of_an_erased_user_is_left_in_any_table(rig: Rig, client: httpx.AsyncClient) -> None:
    await _fill(client)
    before = await _everything(rig)
    holding = {name for name, rows in before.items() if any(SECRET in row for row in rows)}

    erased = await client.delete("/v1/users/ada", headers=key())

    assert erased.json()["deleted"] == {
        "conversations": 1,
        "sessions": 1,
        "files": 1,
        "tickets": 2,
        "events": 1,
        "invoices": 1,
        "users": 1,
    }
    expected = {"users", "messages", "sessions", "files", "invoices", "tickets", "events", "idempotency_keys"}
    assert holding == expected
    after = await _everything(rig)
    assert [row for rows in after.values() for row in rows if SECRET in row] == []
    assert after["turns"] == after["conversations"] == []


async def test_another_user_keeps_everything(rig: Rig, client: httpx.AsyncClient) -> None:
    await _fill(client)
    await _fill(client, user="bob", secret="of-bob", talk="c2")
    before = [row for rows in (await _everything(rig)).values() for row in rows if "of-bob" in row]

    await client.delete("/v1/users/ada")

    after = [row for rows in (await _everything(rig)).values() for row in rows if "of-bob" in row]
    assert len(before) > 8
    assert before == after


async def test_what_an_outbox_still_holds_is_refused_and_does_not_bring_the_user_back(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await _fill(client)
    await client.delete("/v1/users/ada")

    message = {"speaker": "caller", "text": SECRET}
    late = [
        await client.post("/v1/conversations/c1/messages", json=message, headers=key()),
        await client.post("/v1/conversations/c9/messages", json=message | {"user_id": "ada"}, headers=key()),
        await client.post("/v1/conversations/c1/turns", json={"messages": [message]}, headers=key()),
        await client.put("/v1/sessions/s-c1", json={"started_at": "2026-11-24T10:00:00Z", "conversation_id": "c1"}),
        await client.put("/v1/conversations/c1", json={}),
        await client.post("/v1/tickets", json={"kind": "refund", "subject": SECRET, "user_id": "ada"}, headers=key()),
    ]
    event = {"id": "late", "kind": "grant", "at": "2026-11-24T10:00:00Z", "conversation_id": "c1", "reason": SECRET}
    dropped = await client.post("/v1/events", json={"events": [event]})

    assert {answer.status_code for answer in late} == {410}
    assert dropped.json() == {"appended": 0, "known": 0, "erased": 1}
    assert [row for rows in (await _everything(rig)).values() for row in rows if SECRET in row] == []


async def test_a_user_who_comes_back_starts_anew(client: httpx.AsyncClient) -> None:
    await _fill(client)
    await client.delete("/v1/users/ada")

    await client.put("/v1/users/ada", json={"name": "Ada again"})
    message = {"speaker": "caller", "text": "hello", "user_id": "ada"}
    new = await client.post("/v1/conversations/c2/messages", json=message, headers=key())
    old = await client.post("/v1/conversations/c1/messages", json=message, headers=key())

    assert (new.status_code, old.status_code) == (201, 410)


async def test_the_feed_tells_others_what_to_delete(client: httpx.AsyncClient) -> None:
    await _fill(client)

    await client.delete("/v1/users/ada")

    (event,) = (await client.get("/v1/events", params={"kind": "user.erased"})).json()["items"]
    assert event["data"] == {"user_id": "ada", "rooms": ["room-c1"], "conversations": ["c1"]}


async def test_one_conversation_is_erased_alone(client: httpx.AsyncClient) -> None:
    await _fill(client)
    await client.put("/v1/conversations/c2", json={"user_id": "ada"})

    erased = await client.delete("/v1/conversations/c1")

    assert erased.json()["deleted"] == {"sessions": 1, "files": 0, "tickets": 1, "events": 1, "conversations": 1}
    assert (await client.get("/v1/conversations/c1")).status_code == 404
    assert (await client.get("/v1/conversations/c2")).status_code == 200
    (event,) = (await client.get("/v1/events", params={"kind": "conversation.erased"})).json()["items"]
    assert event["data"] == {"rooms": ["room-c1"], "conversations": ["c1"]}


async def test_a_write_at_the_same_moment_is_either_erased_or_refused(rig: Rig, client: httpx.AsyncClient) -> None:
    """Whichever comes first: when all have ended, nothing of the user is there."""
    await client.put("/v1/users/ada", json={"name": SECRET})

    def write(number: int) -> Any:
        body = {"speaker": "caller", "text": SECRET, "user_id": "ada"}
        return client.post(f"/v1/conversations/c{number % 4}/messages", json=body, headers=key())

    writes = [write(number) for number in range(24)]
    answers = await asyncio.gather(*writes[:12], client.delete("/v1/users/ada"), *writes[12:])

    assert {answer.status_code for answer in answers} <= {200, 201, 410}
    everything = await _everything(rig)
    assert [row for rows in everything.values() for row in rows if SECRET in row] == []
    async with rig.parts.database.reading() as session:
        assert await session.get(Erasure, ("acme", "user", "ada")) is not None
