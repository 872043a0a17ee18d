"""The worked example of docs/how-to/migrate-state-manager.md: a state manager over Redis, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from coordination.dev.valkey import EmbeddedValkey
from coordination.persistence import BackendClient, ConversationTurn, PersistenceSettings, Speaker, Utterance
from coordination.persistence.outbox.file import FileOutbox
from coordination.store import Store
from tests.persistence.service import Service


class StateManager:
    """What many agents begin with. Its keys have no TTL, and its participants are a copy of the room's."""

    def __init__(self, redis: Redis, room: str) -> None:
        self._redis, self._room = redis, room

    async def begin(self, user: str, language: str) -> None:
        await self._redis.hset(f"session:{self._room}", mapping={"user": user, "language": language})

    async def add_message(self, role: str, text: str) -> None:
        await self._redis.rpush(f"session:{self._room}:messages", json.dumps({"role": role, "text": text}))

    async def messages(self) -> list[dict[str, str]]:
        return [json.loads(each) for each in await self._redis.lrange(f"session:{self._room}:messages", 0, -1)]

    async def drop(self) -> None:
        await self._redis.delete(f"session:{self._room}", f"session:{self._room}:messages")


SPEAKERS = {"user": Speaker.CALLER, "assistant": Speaker.AGENT}


def as_turn(old: dict[str, str]) -> ConversationTurn:
    return ConversationTurn(messages=(Utterance(speaker=SPEAKERS[old["role"]], text=old["text"]),))


async def move(manager: StateManager, backend: BackendClient, room: str) -> None:
    """Moves a conversation over. May be repeated, and cut off anywhere: each message has a key of its own."""
    for number, old in enumerate(await manager.messages()):
        await backend.save_conversation_turn(room, as_turn(old), room=room, key=f"import:{room}:{number}")


@pytest.fixture
async def redis(valkey: EmbeddedValkey, store: Store) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey.url, decode_responses=True)
    yield client
    await client.aclose()


async def test_a_conversation_moves_over_once_and_goes_on_where_it_was(
    redis: Redis, settings: PersistenceSettings, service: Service
) -> None:
    manager = StateManager(redis, "lobby")
    await manager.begin("ann", "de")
    for role, text in (("user", "hello"), ("assistant", "good morning"), ("user", "my bill")):
        await manager.add_message(role, text)
    outbox = await FileOutbox(settings.outbox_file).open()
    backend = BackendClient(settings, outbox=outbox).start()

    await move(manager, backend, "lobby")
    await move(manager, backend, "lobby")  # the first run was killed before it could say that it was done
    await manager.drop()
    await backend.save_conversation_turn("lobby", as_turn({"role": "assistant", "text": "it is 64 euros"}))
    await backend.close()
    await outbox.close()

    assert service.texts("lobby") == ["hello", "good morning", "my bill", "it is 64 euros"]
    assert await redis.keys("*") == []
