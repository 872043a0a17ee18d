"""The database: one engine, sessions that read and sessions that write.

Invariant: a writing session is one transaction, committed as a whole when its block ends well. On SQLite it takes
the write lock at its start (BEGIN IMMEDIATE): a transaction that reads first and writes later could otherwise fail half
way, because another one wrote in between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from sqlalchemy import Connection, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from backend.models.base import Base
from backend.settings import BackendSettings

_WRITES: Final = "backend_writes"
_BUSY_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 10
_STATEMENT_MS: Final = 30_000


class Database:
    """Opened with the service, closed with it."""

    def __init__(self, settings: BackendSettings) -> None:
        url = settings.engine_url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        # PostgreSQL shows each statement of a reading transaction what is committed by then: without one it shows the
        # same. That is the state in which connections lie in the pool, for the driver pings one that is not in it with
        # a transaction of three round trips.
        reads = _sqlite_engine(url) if self.is_sqlite else _postgresql_engine(url, settings)
        self.engine: AsyncEngine = (
            reads if self.is_sqlite else reads.execution_options(isolation_level="READ COMMITTED")
        )
        writes = self.engine.execution_options(**{_WRITES: True})
        self._readers = async_sessionmaker(reads, expire_on_commit=False)
        self._writers = async_sessionmaker(writes, expire_on_commit=False)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncSession]:
        """A session that sees what is committed and writes nothing."""
        async with self._readers() as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncSession]:
        """One transaction, committed at the end of the block, rolled back by whatever leaves it otherwise."""
        async with self._writers.begin() as session:
            yield session

    async def ping(self) -> None:
        """Raises what the driver raises if the database does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def insert(session: AsyncSession, model: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say ON CONFLICT, in the words of the session's database."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(model)
    return postgresql.insert(model)


async def insert_missing(session: AsyncSession, model: type[Base], **values: Any) -> bool:
    """Inserts a row unless its key is taken; tells whether it did. Waits for another transaction that inserts it."""
    result = await session.execute(insert(session, model).values(**values).on_conflict_do_nothing())
    return cast("Any", result).rowcount == 1


def _sqlite_engine(url: Any) -> AsyncEngine:
    engine = create_async_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None  # transactions begin where SQLAlchemy says so, not where the driver guesses
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: Any, settings: BackendSettings) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=_ANSWER_SECONDS,
        pool_pre_ping=True,
        isolation_level="AUTOCOMMIT",
        connect_args={
            "timeout": _ANSWER_SECONDS,
            "server_settings": {
                "application_name": "baton-backend",
                "statement_timeout": str(_STATEMENT_MS),
                "idle_in_transaction_session_timeout": str(_STATEMENT_MS),
            },
        },
    )
