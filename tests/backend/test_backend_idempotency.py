"""A write with a key happens once, however often and however simultaneously it arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from backend.models import IdempotencyKey
from tests.backend.rig import Rig, key

HELLO = {"speaker": "caller", "text": "hello"}


async def _save(client: httpx.AsyncClient, body: dict[str, Any], name: str, conversation: str = "c1") -> httpx.Response:
    return await client.post(f"/v1/conversations/{conversation}/messages", json=body, headers=key(name))


async def _count(client: httpx.AsyncClient) -> int:
    answer = await client.get("/v1/conversations/c1")
    return answer.json()["messages"] if answer.status_code == 200 else 0


async def test_a_repeated_request_gets_the_first_answer_and_writes_nothing(client: httpx.AsyncClient) -> None:
    first = await _save(client, HELLO, "k1")
    again = await _save(client, {"text": "hello", "speaker": "caller"}, "k1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await _count(client) == 1


async def test_the_key_of_another_request_is_refused(client: httpx.AsyncClient) -> None:
    await _save(client, HELLO, "k1")

    other_body = await _save(client, HELLO | {"text": "bye"}, "k1")
    other_path = await _save(client, HELLO, "k1", conversation="c2")

    assert {other_body.status_code, other_path.status_code} == {409}
    assert other_body.json()["type"] == "idempotency-key-reused"
    assert await _count(client) == 1
    assert (await client.get("/v1/conversations/c2")).status_code == 404


async def test_two_tenants_may_choose_the_same_key(rig: Rig) -> None:
    acme, other = await rig.client("acme"), await rig.client("other")

    answers = [await _save(acme, HELLO, "k1"), await _save(other, HELLO | {"text": "mine"}, "k1")]

    assert [answer.status_code for answer in answers] == [201, 201]


async def test_many_at_once_write_once(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(_save(client, HELLO, "k1") for _ in range(20)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert await _count(client) == 1


async def test_many_keys_at_once_write_each(client: httpx.AsyncClient) -> None:
    names = [f"k{number}" for number in range(15)] * 2

    answers = await asyncio.gather(*(_save(client, HELLO | {"text": name}, name) for name in names))

    assert {answer.status_code for answer in answers} == {201}
    assert await _count(client) == 15


async def test_a_refused_write_does_not_use_its_key_up(client: httpx.AsyncClient) -> None:
    await _save(client, HELLO | {"user_id": "u1"}, "k0")

    refused = await _save(client, HELLO | {"user_id": "u2"}, "k1")
    taken = await _save(client, HELLO, "k1")

    assert (refused.status_code, taken.status_code) == (409, 201)


async def test_a_late_repetition_of_a_put_does_not_undo_a_later_one(client: httpx.AsyncClient) -> None:
    await client.put("/v1/users/u1", json={"name": "first"}, headers=key("k1"))
    await client.put("/v1/users/u1", json={"name": "second"}, headers=key("k2"))

    late = await client.put("/v1/users/u1", json={"name": "first"}, headers=key("k1"))

    assert late.status_code == 200
    assert (await client.get("/v1/users/u1")).json()["name"] == "second"


async def test_a_write_that_adds_something_is_refused_without_a_key(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/conversations/c1/messages", json=HELLO)

    assert answer.status_code == 422
    assert answer.json()["faults"][0]["place"] == "header.Idempotency-Key"


async def test_a_write_whose_end_fails_leaves_neither_message_nor_key(
    rig: Rig, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the message and the stored answer the database fails: both are rolled back, and the retry writes once."""

    def fail(*_: object) -> Any:
        monkeypatch.setattr("backend.idempotency.update", update)
        raise ConnectionError("the database went away")

    monkeypatch.setattr("backend.idempotency.update", fail)
    failed = await _save(client, HELLO, "k1")
    retried = await _save(client, HELLO, "k1")

    assert (failed.status_code, retried.status_code) == (503, 201)
    assert failed.headers["retry-after"] == "1"
    assert await _count(client) == 1
    async with rig.parts.database.reading() as session:
        assert await session.get(IdempotencyKey, ("acme", "k1")) is not None
