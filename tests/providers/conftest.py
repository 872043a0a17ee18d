"""The real plugins against the emulators of their providers, on loopback, without keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from coordination import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.store import Store
from tests.providers.limiting import config

Limited = Callable[..., Awaitable[Coordinator]]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """What a job's HTTP context would give the plugins."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
async def limited(valkey: EmbeddedValkey) -> AsyncIterator[Limited]:
    """Factory of coordinators of one empty store, with limits: `await limited(tokens=1000, streams=2)`."""
    store = Store(valkey.url)
    await store.open()
    await store.command("FLUSHALL")
    async with AsyncExitStack() as stack:

        async def make(**limits: int) -> Coordinator:
            return await stack.enter_async_context(Coordinator.open(valkey.url, limits=config(**limits)))

        yield make
    await store.close()
