"""A real Valkey for the whole session, an empty database and an open store for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.store import Store


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
async def store(valkey: EmbeddedValkey) -> AsyncIterator[Store]:
    store = Store(valkey.url)
    await store.open()
    await store.command("FLUSHALL")
    yield store
    names: list[bytes] = await store.command("KEYS", "*")
    eternal = [name for name in names if await store.command("PTTL", name) == -1]
    eternal = [name for name in eternal if not store.keys.is_permanent(name.decode())]
    await store.close()
    assert not eternal, f"these keys have no TTL: {eternal}"


@pytest.fixture
async def coordinator(valkey: EmbeddedValkey, store: Store) -> AsyncIterator[Coordinator]:
    async with Coordinator.open(valkey.url) as opened:
        yield opened


@pytest.fixture
async def other(valkey: EmbeddedValkey, store: Store) -> AsyncIterator[Coordinator]:
    """Another process, as far as the server can tell."""
    async with Coordinator.open(valkey.url) as opened:
        yield opened
