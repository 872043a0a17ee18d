"""The event feed: what coordinators and LiveKit report is there once, in one order, for whoever follows."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import httpx
import pytest
from livekit import api

from tests.backend.rig import NewRig, Rig, key

MOMENT = "2026-11-24T10:00:00Z"
LIVEKIT = {
    "livekit_url": "ws://127.0.0.1:1",
    "livekit_api_key": "devkey",
    "livekit_api_secret": "a-secret-of-32-characters-or-more",
}


def _event(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"e{number}", "kind": "grant", "at": MOMENT, "room": "front", "fence": number} | more


async def _append(client: httpx.AsyncClient, *events: dict[str, Any]) -> dict[str, int]:
    answer = await client.post("/v1/events", json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _read(client: httpx.AsyncClient, **query: Any) -> list[str]:
    return [it["id"] for it in (await client.get("/v1/events", params=query)).json()["items"]]


async def test_an_event_that_is_sent_again_is_not_stored_again(client: httpx.AsyncClient) -> None:
    first = await _append(client, _event(1), _event(2), _event(1))
    again = await _append(client, _event(2), _event(3))

    assert first == {"appended": 2, "known": 1, "erased": 0}
    assert again == {"appended": 1, "known": 1, "erased": 0}
    assert await _read(client) == ["e1", "e2", "e3"]


async def test_a_follower_misses_nothing_and_sees_nothing_twice_while_many_write(client: httpx.AsyncClient) -> None:
    seen: list[str] = []
    wanted = {f"e{number}" for number in range(60)}

    async def follow() -> None:
        cursor = None
        while len(seen) < len(wanted):
            page = (await client.get("/v1/events", params={"limit": 7} | ({"cursor": cursor} if cursor else {}))).json()
            seen.extend(it["id"] for it in page["items"])
            cursor = page["cursor"]

    async with asyncio.timeout(60):
        await asyncio.gather(
            follow(), *(_append(client, _event(3 * it), _event(3 * it + 1), _event(3 * it + 2)) for it in range(20))
        )

    assert len(seen) == len(set(seen))
    assert set(seen) == wanted


async def test_the_feed_can_be_narrowed_to_kinds_and_a_room(client: httpx.AsyncClient) -> None:
    await _append(client, _event(1), _event(2, kind="commit"), _event(3, room="back"))

    assert await _read(client, kind=["commit", "release"]) == ["e2"]
    assert await _read(client, room="back") == ["e3"]


async def test_a_cursor_beyond_the_end_waits_where_it_is(client: httpx.AsyncClient) -> None:
    await _append(client, _event(1))
    end = (await client.get("/v1/events")).json()["cursor"]

    nothing = (await client.get("/v1/events", params={"cursor": end})).json()
    await _append(client, _event(2))

    assert nothing == {"items": [], "cursor": end}
    assert await _read(client, cursor=end) == ["e2"]


@pytest.fixture
async def with_livekit(new_rig: NewRig) -> Rig:
    """A service that shares a key with LiveKit; nothing listens at its address."""
    return await new_rig(**LIVEKIT)


def _webhook(name: str, *, secret: str = LIVEKIT["livekit_api_secret"], **event: Any) -> tuple[str, dict[str, str]]:
    """Body and headers, signed as LiveKit does."""
    room = {"name": "front", "sid": "RM_1", "metadata": json.dumps({"baton": {"v": 1, "tenant": "acme"}})}
    body = json.dumps({"event": name, "id": "EV_1", "createdAt": "1795514400", "room": room} | event)
    token = api.AccessToken("devkey", secret)
    token.claims.sha256 = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    return body, {"Authorization": token.to_jwt(), "Content-Type": "application/webhook+json"}


async def _send(client: httpx.AsyncClient, body: str, headers: dict[str, str]) -> httpx.Response:
    return await client.post("/v1/livekit/webhook", content=body, headers=headers)


async def test_a_webhook_of_livekit_is_stored_once_for_the_tenant_of_its_room(with_livekit: Rig) -> None:
    nobody, acme = await with_livekit.client(None), await with_livekit.client("acme")
    participant = {"identity": "caller", "sid": "PA_1", "name": "Ada", "metadata": "of her own"}
    signed = _webhook("participant_joined", participant=participant)

    first, again = await _send(nobody, *signed), await _send(nobody, *signed)

    assert (first.json(), again.json()) == ({"appended": 1}, {"appended": 0})
    (event,) = (await acme.get("/v1/events")).json()["items"]
    assert (event["kind"], event["room"], event["id"]) == ("livekit.participant_joined", "front", "livekit:EV_1")
    assert event["data"] == {"sid": "RM_1", "identity": "caller", "kind": 0}
    assert (await (await with_livekit.client("default")).get("/v1/events")).json()["items"] == []


async def test_a_room_that_finished_is_known_to_have_ended(with_livekit: Rig) -> None:
    nobody, acme = await with_livekit.client(None), await with_livekit.client("acme")

    await _send(nobody, *_webhook("room_finished"))

    (room,) = (await acme.get("/v1/rooms")).json()["items"]
    assert (room["name"], room["ended_at"]) == ("front", "2026-11-24T10:00:00Z")


async def test_a_webhook_that_livekit_did_not_sign_is_refused(with_livekit: Rig) -> None:
    nobody = await with_livekit.client(None)
    body, headers = _webhook("room_finished")
    _, foreign = _webhook("room_finished", secret="another-secret-of-32-characters-or-more")

    refused = [
        await _send(nobody, body, foreign),
        await _send(nobody, body.replace("front", "other"), headers),
        await _send(nobody, body, {}),
        await _send(nobody, body, {"Authorization": "nonsense"}),
    ]

    assert {answer.status_code for answer in refused} == {401}


async def test_without_livekit_what_needs_it_says_so(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/rooms", json={}, headers=key())

    assert answer.status_code == 503
    assert "LIVEKIT_URL" in answer.json()["detail"]


async def test_a_livekit_that_does_not_answer_is_an_outage_and_leaves_no_room_behind(with_livekit: Rig) -> None:
    acme = await with_livekit.client("acme")

    answer = await acme.post("/v1/rooms", json={"name": "front"}, headers=key())

    assert (answer.status_code, answer.json()["type"]) == (503, "unavailable")
    assert (await acme.get("/v1/rooms")).json()["items"] == []
