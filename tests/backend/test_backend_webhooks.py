"""Outgoing webhooks: each event in order, signed, tried again within bounds, and to public addresses only."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from backend.addresses import Forbidden, check_address, resolve
from backend.models import Webhook
from backend.models.base import now
from tests.backend.receivers import Receiver, receiving
from tests.backend.rig import NewRig, Rig, key


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
async def rig(new_rig: NewRig) -> Rig:
    return await new_rig(webhook_private=True, webhook_attempts=3)


async def _eventually(holds: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)
    assert holds(), what


async def _hook(client: httpx.AsyncClient, url: str, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/webhooks", json={"url": url} | more, headers=key())
    assert answer.status_code == 201, answer.text
    return answer.json()


async def _append(client: httpx.AsyncClient, *names: str, kind: str = "grant") -> None:
    events = [{"id": name, "kind": kind, "at": "2026-11-24T10:00:00Z"} for name in names]
    assert (await client.post("/v1/events", json={"events": events})).status_code == 200


def _ids(receiver: Receiver) -> list[str]:
    return [json.loads(body)["id"] for _, body in receiver.got]


async def test_events_arrive_in_order_signed_and_from_then_on(client: httpx.AsyncClient, receiver: Receiver) -> None:
    await _append(client, "before")
    hook = await _hook(client, receiver.url)

    await _append(client, "e1", "e2")
    await _append(client, "e3")
    await _eventually(lambda: len(receiver.got) == 3, "three events arrive")

    assert _ids(receiver) == ["e1", "e2", "e3"]
    for headers, body in receiver.got:
        secret = base64.b64decode(hook["secret"].removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 3


async def test_only_the_wanted_kinds_are_delivered(client: httpx.AsyncClient, receiver: Receiver) -> None:
    await _hook(client, receiver.url, kinds=["commit"])

    await _append(client, "e1")
    await _append(client, "e2", kind="commit")
    await _eventually(lambda: len(receiver.got) == 1, "the commit arrives")

    assert _ids(receiver) == ["e2"]


async def test_a_refused_delivery_is_tried_again_with_the_same_id(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.statuses += [500, 302]
    await _hook(client, receiver.url)

    await _append(client, "e1", "e2")
    await _eventually(lambda: len(receiver.got) == 4, "two tries, and both events")

    assert _ids(receiver) == ["e1", "e1", "e1", "e2"]
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


async def test_an_event_that_is_never_taken_is_set_aside_and_the_next_one_delivered(
    rig: Rig, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.statuses += [500, 500, 500]
    hook = await _hook(client, receiver.url)

    await _append(client, "e1", "e2")
    await _eventually(lambda: len(receiver.got) == 4, "three tries, then the next event")

    (failure,) = (await client.get(f"/v1/webhooks/{hook['id']}/failures")).json()["items"]
    assert (failure["sequence"], failure["reason"]) == (1, "status 500")
    assert _ids(receiver)[-1] == "e2"
    metrics = (await client.get("/metrics")).text
    assert 'backend_webhook_deliveries_total{outcome="failed"} 1.0' in metrics


async def test_a_claim_that_ran_out_is_taken_over(rig: Rig, client: httpx.AsyncClient, receiver: Receiver) -> None:
    """Another process claimed the webhook and died: as long as its claim holds nobody delivers, then somebody does."""
    hook = await _hook(client, receiver.url)
    async with rig.parts.database.writing() as session:
        await session.execute(update(Webhook).values(claimed_until=now() + timedelta(seconds=1)))

    await _append(client, "e1")
    await _eventually(lambda: len(receiver.got) == 1, "the event is delivered after all")

    assert _ids(receiver) == ["e1"]
    (listed,) = (await client.get("/v1/webhooks")).json()["items"]
    assert listed["id"] == hook["id"]
    assert "secret" not in listed


async def test_a_deleted_webhook_is_told_nothing_more(client: httpx.AsyncClient, receiver: Receiver) -> None:
    gone, stays = await _hook(client, receiver.url), await _hook(client, receiver.url)

    await client.delete(f"/v1/webhooks/{gone['id']}")
    await _append(client, "e1")
    await _eventually(lambda: len(receiver.got) == 1, "the other one is told")

    assert receiver.got[0][0]["webhook-id"].startswith(stays["id"])


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://0.0.0.0/",
        "https://user:secret@example.com/",
        "https://example.com:99999/",
        "https:///path",
    ],
)
def test_an_address_that_is_not_public_is_refused(url: str) -> None:
    with pytest.raises(Forbidden):
        check_address(url, private=False)


async def test_a_public_name_of_a_private_address_is_refused() -> None:
    """Only a look at DNS tells; the connection would go to the address that was checked."""
    with pytest.raises(Forbidden, match="localhost"):
        await resolve("https://localhost/", private=False)


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    to = await resolve("http://localhost:8080/path", private=True)

    assert to.url.host in ("127.0.0.1", "::1")
    assert (to.host, to.name) == ("localhost:8080", "localhost")


async def test_a_private_address_is_refused_when_a_webhook_is_made(new_rig: NewRig) -> None:
    client = await (await new_rig()).client()

    answer = await client.post("/v1/webhooks", json={"url": "https://127.0.0.1/"}, headers=key())

    assert answer.status_code == 422
    assert "public addresses" in answer.json()["detail"]
