"""What was said is kept in the order in which it was said, whoever saves it and whenever it arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from tests.backend.rig import key


async def _say(client: httpx.AsyncClient, text: str, **more: Any) -> dict[str, Any]:
    body = {"speaker": "caller", "text": text} | more
    answer = await client.post("/v1/conversations/c1/messages", json=body, headers=key())
    assert answer.status_code == 201, answer.text
    return answer.json()


async def _recent(client: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = await client.get("/v1/messages/recent", params=query)
    assert answer.status_code == 200, answer.text
    return [message["text"] for message in answer.json()["messages"]]


async def test_recent_messages_come_with_the_newest_last(client: httpx.AsyncClient) -> None:
    for number in range(12):
        await _say(client, str(number), room="front")

    assert await _recent(client, conversation_id="c1", limit=3) == ["9", "10", "11"]
    assert await _recent(client, room="front") == [str(number) for number in range(2, 12)]


async def test_a_conversation_nobody_saved_has_no_messages(client: httpx.AsyncClient) -> None:
    assert await _recent(client, conversation_id="unheard") == []
    assert await _recent(client, room="unheard") == []


async def test_a_room_that_is_used_again_has_the_messages_of_its_newest_conversation(client: httpx.AsyncClient) -> None:
    await _say(client, "of the first caller", room="front")
    body = {"speaker": "caller", "text": "of the second"}
    await client.post("/v1/conversations/c2/messages", json=body | {"room": "front"}, headers=key())

    assert await _recent(client, room="front") == ["of the second"]


async def test_a_turn_that_arrives_late_stands_where_its_fence_puts_it(client: httpx.AsyncClient) -> None:
    await _say(client, "to the receptionist", fence=5)
    await _say(client, "to billing", fence=9)
    await _say(client, "late, from the receptionist's outbox", fence=5)
    await _say(client, "without a fence: behind all")

    assert await _recent(client, conversation_id="c1") == [
        "to the receptionist",
        "late, from the receptionist's outbox",
        "to billing",
        "without a fence: behind all",
    ]


async def test_a_turn_is_saved_with_its_messages_and_who_spoke(client: httpx.AsyncClient) -> None:
    turn = {
        "agent": "AJ_1",
        "role": "billing",
        "fence": 7,
        "started_at": "2026-11-24T10:00:00+01:00",
        "messages": [
            {"speaker": "caller", "text": "How much?", "at": "2026-11-24T10:00:00+01:00"},
            {"speaker": "agent", "text": "64 euros.", "interrupted": True, "played_seconds": 1.5},
        ],
        "user_id": "u1",
        "room": "front",
    }

    saved = await client.post("/v1/conversations/c1/turns", json=turn, headers=key())

    assert saved.json() == {"conversation_id": "c1", "fence": 7, "turn": 1, "sequences": [1, 2]}
    (stored,) = (await client.get("/v1/conversations/c1/turns")).json()["items"]
    assert (stored["agent"], stored["role"], stored["started_at"]) == ("AJ_1", "billing", "2026-11-24T09:00:00Z")
    messages = (await client.get("/v1/conversations/c1/messages")).json()["items"]
    assert [(it["speaker"], it["agent"], it["role"], it["turn"]) for it in messages] == [
        ("caller", "AJ_1", "billing", 1),
        ("agent", "AJ_1", "billing", 1),
    ]
    assert messages[1]["interrupted"] is True
    conversation = (await client.get("/v1/conversations/c1")).json()
    assert (conversation["user_id"], conversation["room"], conversation["turns"]) == ("u1", "front", 1)


async def test_a_conversation_does_not_change_its_user(client: httpx.AsyncClient) -> None:
    await _say(client, "hello", user_id="u1")

    body = {"speaker": "caller", "text": "not mine", "user_id": "u2"}
    refused = await client.post("/v1/conversations/c1/messages", json=body, headers=key())

    assert (refused.status_code, refused.json()["type"]) == (409, "conflict")
    assert await _recent(client, conversation_id="c1") == ["hello"]


async def test_many_writers_leave_no_gap_and_no_double(client: httpx.AsyncClient) -> None:
    texts = [f"from writer {number}" for number in range(40)]

    await asyncio.gather(*(_say(client, text) for text in texts))

    messages = (await client.get("/v1/conversations/c1/messages", params={"limit": 100})).json()["items"]
    assert [it["sequence"] for it in messages] == list(range(1, 41))
    assert sorted(it["text"] for it in messages) == sorted(texts)


async def test_pages_hold_everything_once_while_it_grows(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await _say(client, str(number))
    first = (await client.get("/v1/conversations/c1/messages", params={"limit": 2})).json()
    await _say(client, "5")

    texts, page = [it["text"] for it in first["items"]], first
    while page["next_cursor"]:
        query = {"limit": 2, "cursor": page["next_cursor"]}
        page = (await client.get("/v1/conversations/c1/messages", params=query)).json()
        texts += [it["text"] for it in page["items"]]

    assert texts == ["0", "1", "2", "3", "4", "5"]


async def test_a_cursor_of_another_list_is_refused(client: httpx.AsyncClient) -> None:
    await client.put("/v1/conversations/c1", json={})
    for cursor in ("nonsense", "W10", "e30", "WyJhIiwiYiJd"):
        answer = await client.get("/v1/conversations/c1/messages", params={"cursor": cursor})

        assert answer.status_code == 422, cursor
