"""No tenant reads or writes another's data: every operation of the description is tried with a foreign token.

Whatever is added to the API is tried without a change here, or the test says what it cannot fill in.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from backend.models import Base
from coordination.dev.livekit_server import LiveKitServer
from tests.backend.rig import NewRig, Rig, key

MARK = "only-for-acme"
MOMENT = "2026-11-24T10:00:00Z"
PATHS = {
    "user_id": "u1",
    "conversation_id": "c1",
    "session_id": "s1",
    "file_id": "f1",
    "invoice_id": "i1",
    "number": "4711",
    "room": "room1",
}
QUERIES = {"conversation_id": "c1", "room": "room1", "user_id": "u1", "identity": "caller"}
TALK = {"user_id": "u1", "conversation_id": "c1"}
MESSAGE = {"speaker": "caller", "text": MARK, "user_id": "u1", "room": "room1"}
BODIES: dict[str, Any] = {
    "put_user": {"name": MARK, "preferences": {"note": MARK}},
    "patch_preferences": {"note": MARK},
    "put_conversation": {"user_id": "u1", "room": "room1"},
    "save_message": MESSAGE,
    "save_conversation_turn": {"agent": MARK, "messages": [MESSAGE | {"user_id": None, "room": None}]},
    "save_session": TALK | {"started_at": MOMENT, "details": {"note": MARK}},
    "create_room": TALK | {"name": "room1", "metadata": {"note": MARK}},
    "create_join_token": {"identity": "caller"},
    "update_room_metadata": {"metadata": {"note": MARK}},
    "update_participant": {"name": MARK},
    "append_events": {"events": [{"id": "e1", "kind": "grant", "at": MOMENT, "reason": MARK}]},
    "create_webhook": {"url": f"https://example.com/{MARK}"},
    "put_file": TALK | {"name": MARK, "media_type": "audio/wav", "url": "s3://a/b"},
    "put_invoice": {
        "user_id": "u1",
        "issued_on": "2026-11-01",
        "due_on": "2026-12-01",
        "items": [{"text": MARK, "cents": 1}],
    },
    "open_ticket": TALK | {"kind": "refund", "subject": MARK},
    "change_ticket": {"status": "done"},
}
MESSAGE_FIELDS = ("speaker", "text")
BODIES["save_conversation_turn"]["messages"] = [{name: MESSAGE[name] for name in MESSAGE_FIELDS}]
SEED = (
    "create_room",
    "put_user",
    "put_conversation",
    "save_message",
    "save_conversation_turn",
    "save_session",
    "append_events",
    "create_webhook",
    "put_file",
    "put_invoice",
    "open_ticket",
)


@pytest.fixture(scope="module")
def livekit() -> Any:
    with LiveKitServer() as server:
        yield server


@pytest.fixture
async def rig(new_rig: NewRig, livekit: LiveKitServer) -> Rig:
    return await new_rig(**livekit.environment)


def _operations(rig: Rig) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Operation id -> method, path, description; those that want a token."""
    return {
        operation["operationId"]: (method, path, operation)
        for path, methods in rig.app.openapi()["paths"].items()
        for method, operation in methods.items()
        if operation.get("security")
    }


async def _call(
    client: httpx.AsyncClient, rig: Rig, name: str, paths: dict[str, str], mark: str = MARK, **query: str
) -> httpx.Response:
    method, path, operation = _operations(rig)[name]
    wanted = [it["name"] for it in operation.get("parameters", []) if it["in"] == "path"]
    missing = [it for it in wanted if it not in paths]
    assert not missing, f"say what {missing} of {name} is, in PATHS"
    if "requestBody" in operation:
        assert name in BODIES, f"say what the body of {name} is, in BODIES"
    url = path.format(**{it: paths[it] for it in wanted})
    body = json.dumps(BODIES.get(name)).replace(MARK, mark)
    headers = key() | {"Content-Type": "application/json"}
    return await client.request(method, url, content=body if name in BODIES else None, headers=headers, params=query)


async def _rows(rig: Rig, *, of_others: str) -> dict[str, list[str]]:
    """All rows but those of one tenant."""
    found: dict[str, list[str]] = {}
    async with rig.parts.database.reading() as session:
        for table in Base.metadata.sorted_tables:
            query = select(table).where(table.c.tenant != of_others)
            # How far a webhook's receiver is, and who serves it, moves by itself.
            columns = [it for it in table.c if it.name not in ("delivered", "claimed_until")]
            rows = await session.execute(query.with_only_columns(*columns))
            found[table.name] = sorted(str(tuple(row)) for row in rows if table.name != "failed_deliveries")
    return found


async def _seed(rig: Rig) -> dict[str, str]:
    """One of everything for the tenant acme; returns the paths that lead there."""
    acme = await rig.client("acme")
    answers = {name: await _call(acme, rig, name, PATHS) for name in SEED}
    assert {name: it.text for name, it in answers.items() if it.status_code not in (200, 201)} == {}
    return PATHS | {"webhook_id": answers["create_webhook"].json()["id"]}


async def test_every_operation_with_a_foreign_token_shows_nothing_and_changes_nothing(rig: Rig) -> None:
    paths = await _seed(rig)
    other = await rig.client("other")
    before = await _rows(rig, of_others="other")
    assert {name for name, rows in before.items() if not rows} <= {"erasures", "failed_deliveries"}

    for name, (_, _, operation) in _operations(rig).items():
        wanted = {it["name"] for it in operation.get("parameters", []) if it["in"] == "query"}
        queries = [{}] + [{it: QUERIES[it]} for it in sorted(wanted & set(QUERIES))]
        for query in queries:
            answer = await _call(other, rig, name, paths, mark="of-the-other", **query)

            assert answer.status_code < 500, f"{name}: {answer.text}"
            assert MARK not in answer.text, f"{name} shows what is another tenant's"
        assert await _rows(rig, of_others="other") == before, f"{name} changed what is another tenant's"


async def test_the_same_operations_with_the_right_token_find_what_is_there(rig: Rig) -> None:
    """So that the test above cannot pass because nothing can be found at all."""
    paths = await _seed(rig)
    acme = await rig.client("acme")

    shown = {
        name
        for name, (method, _, _) in _operations(rig).items()
        if method == "get" and MARK in (await _call(acme, rig, name, paths, conversation_id="c1")).text
    }

    lists = {
        "list_users",
        "list_messages",
        "list_turns",
        "list_sessions",
        "list_files",
        "list_invoices",
        "list_tickets",
    }
    single = {"get_user", "get_user_context", "get_session", "get_file", "get_invoice", "get_ticket", "get_room"}
    assert shown == lists | single | {"get_recent_messages", "read_events", "list_webhooks"}


async def test_a_room_of_another_tenant_is_as_unknown_as_none(rig: Rig) -> None:
    paths = await _seed(rig)
    other = await rig.client("other")
    of_rooms = ("get_room", "create_join_token", "update_room_metadata", "update_participant", "end_room")

    for name in of_rooms:
        foreign = await _call(other, rig, name, paths, identity="caller")
        unknown = await _call(other, rig, name, paths | {"room": "none"}, identity="caller")

        assert (foreign.status_code, unknown.status_code) == (404, 404), name
        assert foreign.text.replace("room1", "none") == unknown.text
    taken = await _call(other, rig, "create_room", paths)
    assert taken.status_code == 409
