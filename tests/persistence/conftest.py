"""Outboxes of both forms: a file of the test's own, and an embedded Valkey that is emptied for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from coordination.dev.valkey import EmbeddedValkey
from coordination.persistence.outbox import drain
from coordination.persistence.outbox.box import Outbox
from coordination.persistence.outbox.file import FileOutbox
from coordination.persistence.outbox.stream import StreamOutbox
from coordination.persistence.settings import PersistenceSettings
from coordination.store import Store
from tests.persistence.service import TOKEN, Service, serving


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
    await store.close()
    left = [name for name in eternal if not store.keys.is_permanent(name.decode())]
    assert not left, f"these keys have no TTL and are not permanent by design: {left}"


@pytest.fixture(params=["file", "stream"])
async def outbox(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> AsyncIterator[Outbox]:
    """Each test that takes it runs on both forms."""
    box: FileOutbox | StreamOutbox
    box = FileOutbox(tmp_path / "outbox.sqlite3") if request.param == "file" else StreamOutbox(store)
    await box.open()
    yield box
    await box.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as running:
        yield running


@pytest.fixture
def settings(service: Service, tmp_path: Path) -> PersistenceSettings:
    return PersistenceSettings(
        backend_url=service.url,
        backend_token=SecretStr(TOKEN),
        backend_timeout=timedelta(seconds=1),
        outbox_file=tmp_path / "client.sqlite3",
        outbox_drain=timedelta(seconds=5),
    )


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries within milliseconds, so that a test can wait for them."""
    monkeypatch.setattr(drain, "FIRST_RETRY", timedelta(milliseconds=10))
    monkeypatch.setattr(drain, "LAST_RETRY", timedelta(milliseconds=50))
