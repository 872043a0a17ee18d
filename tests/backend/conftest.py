"""The backend as a whole, on SQLite in a file and on PostgreSQL: the same tests on both."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.app import create_app
from backend.database import Database
from backend.migrations import upgrade
from backend.models import Base
from backend.settings import BackendSettings
from coordination.dev.postgres import EmbeddedPostgres
from tests.backend.rig import DIALECTS, NewDatabase, NewRig, Rig

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller's shell says about the backend and LiveKit does not reach these tests."""
    for name in ("BACKEND_DATABASE_URL", "LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(arguments=("-c", "max_connections=300")) as server:
        yield server


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    """Factory of migrated, empty databases. On SQLite a copy of a file; on PostgreSQL always the same one, emptied."""
    folder = tmp_path_factory.mktemp("databases")
    migrated: dict[str, str] = {}

    def make(dialect: str) -> str:
        if dialect not in migrated:
            migrated[dialect] = _bare(dialect, request, folder)
            asyncio.run(_migrate(migrated[dialect]))
        url = migrated[dialect]
        if dialect == "sqlite":
            file = folder / f"copy{next(_numbers)}.db"
            shutil.copy(url.removeprefix("sqlite:///"), file)
            return f"sqlite:///{file}"
        tables = reversed(Base.metadata.sorted_tables)
        asyncio.run(_execute(url, "; ".join(f"DELETE FROM {table.name}" for table in tables)))
        return url

    return make


@pytest.fixture
def bare_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Factory of databases without any table."""
    return lambda dialect: _bare(dialect, request, tmp_path)


def _bare(dialect: str, request: pytest.FixtureRequest, folder: Path) -> str:
    name = f"baton{next(_numbers)}"
    if dialect == "sqlite":
        return f"sqlite:///{folder / name}.db"
    server: EmbeddedPostgres = request.getfixturevalue("postgres")
    asyncio.run(_execute(server.url(), f"CREATE DATABASE {name}"))
    return server.url(name)


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection: Any = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _migrate(url: str) -> None:
    database = Database(BackendSettings(database_url=url))
    await upgrade(database)
    await database.close()


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database, of each kind in turn. Made before the test's event loop runs."""
    make: NewDatabase = request.getfixturevalue("new_database")
    return make(request.param)


@pytest.fixture
async def new_rig(database_url: str) -> AsyncGenerator[NewRig]:
    """Factory of services on the test's database: `await new_rig(webhook_private=True)`."""
    async with AsyncExitStack() as stack:

        async def make(**values: Any) -> Rig:
            settings = BackendSettings(database_url=database_url, **values)
            app = create_app(settings)
            await stack.enter_async_context(app.router.lifespan_context(app))
            return Rig(app=app, settings=settings, stack=stack)

        yield make


@pytest.fixture
async def rig(new_rig: NewRig) -> Rig:
    return await new_rig()


@pytest.fixture
async def client(rig: Rig) -> httpx.AsyncClient:
    """Of the tenant `acme`."""
    return await rig.client()
