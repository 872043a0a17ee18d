"""The real plugins against the emulators of their providers, on loopback, without keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """What a job's HTTP context would give the plugins."""
    async with aiohttp.ClientSession() as session:
        yield session
