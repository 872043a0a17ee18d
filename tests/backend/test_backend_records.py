"""Users, sessions, invoices, tickets and files are kept as they were given, and found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from tests.backend.rig import key

INVOICE = {
    "user_id": "ada",
    "issued_on": "2026-11-01",
    "due_on": "2026-12-01",
    "items": [{"text": "plan", "cents": 3990}, {"text": "credit", "cents": -500}],
}
SESSION = {"started_at": "2026-11-24T10:00:00Z", "conversation_id": "c1", "user_id": "ada", "room": "front"}


async def _put(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.put(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_user_is_replaced_by_put_and_preferences_are_changed_by_patch(client: httpx.AsyncClient) -> None:
    await _put(client, "/v1/users/ada", {"name": "Ada", "language": "de-AT", "preferences": {"a": 1, "b": {"c": 2}}})

    patch = {"a": None, "b": {"d": 3}}
    patched = await client.patch("/v1/users/ada/preferences", json=patch)
    replaced = await _put(client, "/v1/users/ada", {"name": "Ada L."})

    assert patched.json()["preferences"] == {"b": {"c": 2, "d": 3}}
    assert (patched.json()["name"], patched.json()["language"]) == ("Ada", "de-AT")
    assert (replaced["name"], replaced["language"], replaced["preferences"]) == ("Ada L.", None, {})


async def test_preferences_of_nobody_are_not_found(client: httpx.AsyncClient) -> None:
    assert (await client.patch("/v1/users/nobody/preferences", json={})).status_code == 404


async def test_the_context_of_a_user_is_what_an_agent_wants_to_know(client: httpx.AsyncClient) -> None:
    await _put(client, "/v1/users/ada", {"name": "Ada"})
    for number, conversation in enumerate(("c1", "c2")):
        body = {"speaker": "caller", "text": f"call {number}", "user_id": "ada"}
        await client.post(f"/v1/conversations/{conversation}/messages", json=body, headers=key())
    await _put(client, "/v1/invoices/2026-11", INVOICE)
    await _put(client, "/v1/invoices/2026-10", INVOICE | {"issued_on": "2026-10-01"})
    for subject in ("router", "line"):
        body = {"kind": "technician", "subject": subject, "user_id": "ada"}
        await client.post("/v1/tickets", json=body, headers=key())
    await client.patch("/v1/tickets/4711", json={"status": "done"})

    context = (await client.get("/v1/users/ada/context")).json()

    assert context["user"]["name"] == "Ada"
    assert (context["conversations"], context["last_conversation"]["id"]) == (2, "c2")
    assert [message["text"] for message in context["last_messages"]] == ["call 1"]
    assert [ticket["subject"] for ticket in context["open_tickets"]] == ["line"]
    assert [invoice["id"] for invoice in context["invoices"]] == ["2026-11", "2026-10"]
    assert (await client.get("/v1/users/nobody/context")).status_code == 404


async def test_a_session_ends_its_conversation_and_knows_its_duration(client: httpx.AsyncClient) -> None:
    await _put(client, "/v1/sessions/s1", SESSION)
    ended = SESSION | {"ended_at": "2026-11-24T10:02:30Z", "handoffs": 2, "roles": ["receptionist", "billing"]}

    saved = await _put(client, "/v1/sessions/s1", ended)

    assert (saved["duration_seconds"], saved["handoffs"], saved["roles"]) == (150, 2, ["receptionist", "billing"])
    conversation = (await client.get("/v1/conversations/c1")).json()
    assert (conversation["user_id"], conversation["room"]) == ("ada", "front")
    assert conversation["ended_at"] == "2026-11-24T10:02:30Z"
    assert [it["id"] for it in (await client.get("/v1/sessions?user_id=ada")).json()["items"]] == ["s1"]


async def test_an_older_holder_does_not_overwrite_a_newer_ones_record(client: httpx.AsyncClient) -> None:
    await _put(client, "/v1/sessions/s1", SESSION | {"fence": 9, "reason": "newer"})

    refused = await client.put("/v1/sessions/s1", json=SESSION | {"fence": 5, "reason": "older"})

    assert (refused.status_code, refused.json()["type"]) == (409, "stale-fence")
    assert (await client.get("/v1/sessions/s1")).json()["reason"] == "newer"


async def test_an_invoice_keeps_its_amounts_and_its_user(client: httpx.AsyncClient) -> None:
    await _put(client, "/v1/invoices/7", INVOICE)
    paid = await _put(client, "/v1/invoices/7", INVOICE | {"status": "paid"})

    other = await client.put("/v1/invoices/7", json=INVOICE | {"user_id": "bob"})

    assert (paid["status"], paid["items"], paid["currency"]) == ("paid", INVOICE["items"], "EUR")
    assert other.status_code == 409
    assert (await client.get("/v1/invoices?user_id=bob")).json()["items"] == []


async def test_tickets_opened_at_once_have_numbers_in_a_row(client: httpx.AsyncClient) -> None:
    body = {"kind": "technician", "subject": "line"}

    answers = await asyncio.gather(*(client.post("/v1/tickets", json=body, headers=key()) for _ in range(10)))

    assert sorted(answer.json()["number"] for answer in answers) == list(range(4711, 4721))
    assert len((await client.get("/v1/tickets?status=open")).json()["items"]) == 10


async def test_each_list_is_narrowed_to_what_is_asked_for_and_comes_in_pages(client: httpx.AsyncClient) -> None:
    file = {"name": "call.wav", "media_type": "audio/wav", "url": "s3://bucket/call.wav"}
    for number, (user, talk, room) in enumerate([("ada", "c1", "front"), ("bob", "c2", "back"), ("ada", "c3", "back")]):
        whose = {"user_id": user, "conversation_id": talk}
        await _put(client, f"/v1/sessions/s{number}", SESSION | whose | {"room": room})
        await _put(client, f"/v1/files/f{number}", file | whose)
        await _put(client, f"/v1/invoices/i{number}", INVOICE | {"user_id": user})
        ticket = {"kind": "technician", "subject": talk, "user_id": user}
        await client.post("/v1/tickets", json=ticket, headers=key())
    await client.patch("/v1/tickets/4711", json={"status": "done"})

    assert await _ids(client, "sessions") == ["s0", "s1", "s2"]
    assert await _ids(client, "sessions", user_id="ada") == ["s0", "s2"]
    assert await _ids(client, "sessions", conversation_id="c2") == ["s1"]
    assert await _ids(client, "files") == ["f0", "f1", "f2"]
    assert await _ids(client, "files", user_id="ada", conversation_id="c3") == ["f2"]
    assert await _ids(client, "files", user_id="bob", conversation_id="c3") == []
    assert await _ids(client, "invoices", user_id="ada") == ["i0", "i2"]
    assert await _ids(client, "conversations", room="back") == ["c2", "c3"]
    assert await _ids(client, "conversations", room="back", user_id="ada") == ["c3"]
    assert await _ids(client, "tickets", "number", user_id="ada", status="open") == [4713]


async def _ids(client: httpx.AsyncClient, what: str, field: str = "id", **wanted: str) -> list[Any]:
    """The whole of a list, one item a page."""
    found: list[Any] = []
    page: dict[str, Any] = {"next_cursor": None}
    while not found or page["next_cursor"]:
        query = {**wanted, "limit": 1} | ({"cursor": page["next_cursor"]} if page["next_cursor"] else {})
        page = (await client.get(f"/v1/{what}", params=query)).json()
        if not page["items"]:
            break
        found += [item[field] for item in page["items"]]
    return found


async def test_a_file_reference_can_be_forgotten(client: httpx.AsyncClient) -> None:
    body = {"name": "call.wav", "media_type": "audio/wav", "url": "s3://bucket/call.wav", "conversation_id": "c1"}
    await _put(client, "/v1/files/f1", body)

    found = (await client.get("/v1/files?conversation_id=c1")).json()["items"]
    gone = await client.delete("/v1/files/f1")

    assert [(it["name"], it["url"]) for it in found] == [("call.wav", "s3://bucket/call.wav")]
    assert gone.status_code == 204
    assert (await client.get("/v1/files/f1")).status_code == 404


async def test_what_a_database_or_a_reader_would_stumble_over_is_refused(client: httpx.AsyncClient) -> None:
    deep: dict[str, Any] = {}
    for _ in range(20):
        deep = {"in": deep}
    bad: list[Any] = [deep, {"a": "\x00"}, {"\x00": 1}, {"a": 2**60}, {"a": "x" * 70_000}]

    answers = [await client.put("/v1/users/ada", json={"preferences": value}) for value in bad]
    raw = [b'{"preferences": {"a": NaN}}', b'{"preferences": {"a": "\\ud800"}}', b"[", b'{"name": "\\u0000"}']
    answers += [await client.put("/v1/users/ada", content=body) for body in raw]

    assert [answer.status_code for answer in answers] == [422] * 9
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert (await client.get("/v1/users/ada")).status_code == 404


async def test_a_number_is_no_date_no_flag_and_no_other_number(client: httpx.AsyncClient) -> None:
    """Python would take each of them for the other; schemathesis found it."""
    event = {"id": "e1", "kind": "grant", "at": "2026-11-24T10:00:00Z"}
    bad: list[dict[str, Any]] = [event | {"at": 0}, event | {"fence": True}, event | {"at": "0"}]
    refused = [await client.post("/v1/events", json={"events": [it]}) for it in bad]
    message = {"speaker": "caller", "text": "hello", "interrupted": 1}
    refused.append(await client.post("/v1/conversations/c1/messages", json=message, headers=key()))
    refused.append(await client.put("/v1/invoices/1", json=INVOICE | {"issued_on": 0}))

    assert [answer.status_code for answer in refused] == [422] * 5


async def test_a_body_beyond_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    declared = await client.put("/v1/users/ada", content=b" " * 2_000_000)
    undeclared = await client.put("/v1/users/ada", content=chunks())

    assert (declared.status_code, undeclared.status_code) == (413, 413)
