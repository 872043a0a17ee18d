"""The outbox without Redis: one SQLite file in WAL mode, shared by all processes of a host that name it.

Durable means: written to the file before `append` returns. A process that is killed loses nothing; whether a machine
that loses its power does is decided by `sync` (see `FileOutbox`). The file must lie on a local disk that can be
written and that outlives the process; how to give a container one is in docs/how-to/persistence.md.

Appends have a thread and a connection of their own, which never runs a checkpoint: what a turn waits for is one write
at the end of the log. Those of one moment share a transaction.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final, Self, TypeVar

from coordination.errors import CoordinationError, InvalidArgument
from coordination.ids import DEFAULT_TENANT, Tenant
from coordination.persistence.errors import OutboxFormat, OutboxUnavailable
from coordination.persistence.outbox.box import BATCH, CLAIM, Claim, Failure, OutboxStatistics, SetAside
from coordination.persistence.outbox.item import OutboxItem, conversation_of

FORMAT: Final = 1
"""Of the file's tables, kept in its `user_version`."""
BUSY: Final = 5.0
"""Seconds that one process waits for another that writes; a transaction here takes a fraction of a millisecond."""
NOTHING_DUE: Final = timedelta(seconds=5)
"""When to look again at an empty outbox: what another process appended is found then, at the latest."""

Answer = TypeVar("Answer")


class FileOutbox:
    """One tenant's items in a file. Open it with `open`, close it with `close`; one event loop uses it."""

    def __init__(self, path: Path, *, tenant: Tenant = DEFAULT_TENANT, sync: bool = False) -> None:
        """With `sync` an item has reached the disk when `append` returns, and outlives a power cut.

        That takes as long as the disk does (5 ms and more are common); without it an item has reached the operating
        system, and outlives everything that can happen to a process.
        """
        self._path, self._tenant, self._sync = path, tenant, sync
        self._appends = _Connection(path, sync=sync, checkpoints=False)
        self._drains = _Connection(path, sync=sync, checkpoints=True)
        self._pending: list[tuple[OutboxItem, str, asyncio.Future[None]]] = []
        self._lock = threading.Lock()

    async def open(self) -> Self:
        """Makes the file, readable by its owner alone, or finds it. Raises `OutboxUnavailable`, `OutboxFormat`."""
        try:
            await self._drains.open()
            await self._appends.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        await self._appends.close()
        await self._drains.close()

    # -- saving -----------------------------------------------------------------------------------

    async def append(self, item: OutboxItem) -> None:
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        entry = (item, item.encode(), stored)
        with self._lock:
            first = not self._pending
            self._pending.append(entry)
        if first:
            self._appends.submit(lambda connection: self._append(connection, loop))
        await stored

    def _append(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread of appends: writes whatever was asked for until now."""
        with self._lock:
            pending, self._pending = self._pending, []
        fault: CoordinationError | None = None
        try:
            now = time.time()
            with _transaction(connection):
                connection.executemany(
                    "INSERT OR IGNORE INTO items (id, tenant, conversation, user, appended, item)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    [(item.id, self._tenant, item.conversation, item.user, now, text) for item, text, _ in pending],
                )
                connection.executemany(
                    "INSERT OR IGNORE INTO conversations (tenant, name, due) VALUES (?, ?, ?)",
                    {(self._tenant, item.conversation, now) for item, _, _ in pending},
                )
        except sqlite3.Error as error:
            fault = self._unavailable("was not written", error)
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(_answer, [stored for _, _, stored in pending], fault)

    # -- draining ---------------------------------------------------------------------------------

    async def claim(self) -> Claim | timedelta:
        return await self._run("was not read", self._claim)

    def _claim(self, connection: sqlite3.Connection) -> Claim | timedelta:
        now, token = time.time(), secrets.token_hex(8)
        with _transaction(connection):
            row = connection.execute(
                "SELECT name, due, attempts FROM conversations WHERE tenant = ? ORDER BY due LIMIT 1", (self._tenant,)
            ).fetchone()
            if row is None:
                return NOTHING_DUE
            name, due, attempts = str(row[0]), float(row[1]), int(row[2])
            if due > now:
                return min(NOTHING_DUE, timedelta(seconds=due - now))
            connection.execute(
                "UPDATE conversations SET due = ?, token = ? WHERE tenant = ? AND name = ?",
                (now + CLAIM.total_seconds(), token, self._tenant, name),
            )
            texts = connection.execute(
                "SELECT item FROM items WHERE tenant = ? AND conversation = ? ORDER BY place LIMIT ?",
                (self._tenant, name, BATCH),
            ).fetchall()
        items = tuple(OutboxItem.decode(text) for (text,) in texts)
        return Claim(conversation=name, token=token, items=items, attempts=attempts)

    async def settle(self, claim: Claim, *, delivered: int, failure: Failure | None = None) -> None:
        await self._run("was not written", lambda connection: self._settle(connection, claim, delivered, failure))

    def _settle(self, connection: sqlite3.Connection, claim: Claim, delivered: int, failure: Failure | None) -> None:
        now = time.time()
        gone = [item.id for item in claim.items[:delivered]]
        with _transaction(connection):
            if failure is not None and failure.poison:
                poison = claim.items[delivered]
                gone.append(poison.id)
                connection.execute(
                    "INSERT OR REPLACE INTO set_aside (id, tenant, user, item, reason, at) VALUES (?, ?, ?, ?, ?, ?)",
                    (poison.id, self._tenant, poison.user, poison.encode(), failure.reason, now),
                )
            connection.executemany(
                "DELETE FROM items WHERE tenant = ? AND id = ?", [(self._tenant, item_id) for item_id in gone]
            )
            mine = (self._tenant, claim.conversation, claim.token)
            if failure is not None and not failure.poison:
                attempts = 1 if delivered else claim.attempts + 1
                connection.execute(
                    "UPDATE conversations SET due = ?, attempts = ?, token = NULL"
                    " WHERE tenant = ? AND name = ? AND token = ?",
                    (now + failure.retry_in.total_seconds(), attempts, *mine),
                )
                return
            connection.execute(
                "UPDATE conversations SET due = ?, attempts = 0, token = NULL"
                " WHERE tenant = ? AND name = ? AND token = ?",
                (now, *mine),
            )
            self._drop_empty(connection, claim.conversation)

    def _drop_empty(self, connection: sqlite3.Connection, conversation: str) -> None:
        connection.execute(
            "DELETE FROM conversations WHERE tenant = ?1 AND name = ?2 AND token IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM items WHERE tenant = ?1 AND conversation = ?2)",
            (self._tenant, conversation),
        )

    # -- looking and mending ----------------------------------------------------------------------

    async def statistics(self) -> OutboxStatistics:
        return await self._run("was not read", self._statistics)

    def _statistics(self, connection: sqlite3.Connection) -> OutboxStatistics:
        row = connection.execute(
            "SELECT count(*), count(DISTINCT conversation), min(appended),"
            " (SELECT count(*) FROM set_aside WHERE tenant = ?1) FROM items WHERE tenant = ?1",
            (self._tenant,),
        ).fetchone()
        oldest = datetime.fromtimestamp(row[2], UTC) if row[2] is not None else None
        return OutboxStatistics(waiting=row[0], conversations=row[1], set_aside=row[3], oldest=oldest)

    async def tenants(self) -> frozenset[Tenant]:
        """Everybody who has items in the file, not this tenant alone. Raises `OutboxUnavailable`."""
        query = "SELECT tenant FROM conversations UNION SELECT tenant FROM set_aside"
        rows = await self._run("was not read", lambda c: c.execute(query).fetchall())
        return frozenset(Tenant(name) for (name,) in rows)

    async def waiting(self, limit: int = 100) -> Sequence[OutboxItem]:
        query = "SELECT item FROM items WHERE tenant = ? ORDER BY place LIMIT ?"
        rows = await self._run("was not read", lambda c: c.execute(query, (self._tenant, limit)).fetchall())
        return tuple(OutboxItem.decode(text) for (text,) in rows)

    async def set_aside(self, limit: int = 100) -> Sequence[SetAside]:
        query = "SELECT item, reason, at FROM set_aside WHERE tenant = ? ORDER BY at LIMIT ?"
        rows = await self._run("was not read", lambda c: c.execute(query, (self._tenant, limit)).fetchall())
        return tuple(
            SetAside(item=OutboxItem.decode(text), reason=reason, at=datetime.fromtimestamp(at, UTC))
            for text, reason, at in rows
        )

    async def replay(self, item_id: str | None = None) -> int:
        return await self._run("was not written", lambda connection: self._replay(connection, item_id))

    def _replay(self, connection: sqlite3.Connection, item_id: str | None) -> int:
        now = time.time()
        with _transaction(connection):
            rows = connection.execute(
                "SELECT id, user, item FROM set_aside WHERE tenant = ?1 AND (?2 IS NULL OR id = ?2) ORDER BY at",
                (self._tenant, item_id),
            ).fetchall()
            for found, user, text in rows:
                conversation = OutboxItem.decode(text).conversation
                connection.execute(
                    "INSERT OR IGNORE INTO items (id, tenant, conversation, user, appended, item)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (found, self._tenant, conversation, user, now, text),
                )
                connection.execute(
                    "INSERT OR IGNORE INTO conversations (tenant, name, due) VALUES (?, ?, ?)",
                    (self._tenant, conversation, now),
                )
                connection.execute("DELETE FROM set_aside WHERE tenant = ? AND id = ?", (self._tenant, found))
        return len(rows)

    async def forget(self, user: str) -> int:
        if not user:
            raise InvalidArgument("Name the user whose items are to be removed.")

        def remove(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                removed = [
                    connection.execute(f"DELETE FROM {table} WHERE tenant = ? AND user = ?", (self._tenant, user))
                    for table in ("items", "set_aside")
                ]
            return sum(each.rowcount for each in removed)

        return await self._run("was not written", remove)

    async def forget_conversation(self, conversation: str) -> int:
        def remove(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                where = (self._tenant, conversation)
                removed = connection.execute("DELETE FROM items WHERE tenant = ? AND conversation = ?", where).rowcount
                aside = connection.execute("SELECT id, item FROM set_aside WHERE tenant = ?", (self._tenant,))
                theirs = [name for name, text in aside if conversation_of(text) == conversation]
                for name in theirs:
                    connection.execute("DELETE FROM set_aside WHERE tenant = ? AND id = ?", (self._tenant, name))
            return removed + len(theirs)

        return await self._run("was not written", remove)

    async def _run(self, failure: str, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        try:
            return await self._drains.run(work)
        except sqlite3.Error as error:
            raise self._unavailable(failure, error) from error

    def _unavailable(self, failure: str, error: Exception) -> OutboxUnavailable:
        return OutboxUnavailable(
            f"The outbox {self._path} {failure}: {error}. It needs a local disk with free space that this process may "
            "write to (BATON_OUTBOX_FILE)."
        )


class _Connection:
    """One SQLite connection in a thread of its own, so that no file access runs in the event loop."""

    def __init__(self, path: Path, *, sync: bool, checkpoints: bool) -> None:
        self._path, self._sync, self._checkpoints = path, sync, checkpoints
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="baton-outbox")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except (sqlite3.Error, OSError) as error:
            raise OutboxUnavailable(
                f"The outbox {self._path} cannot be opened: {error}. Name a file on a local disk that this process "
                "may write to in BATON_OUTBOX_FILE, or configure Redis (BATON_REDIS_URL)."
            ) from error

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What was said in a call is nobody else's business on this host; SQLite gives the other files the same mode.
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'NORMAL'}")
        if not self._checkpoints:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found == 0:
            connection.executescript(
                files("coordination.persistence.outbox").joinpath("file.sql").read_text(encoding="utf-8")
            )
        elif found != FORMAT:
            raise OutboxFormat(
                f"The outbox {self._path} is of format {found}, and this release knows {FORMAT}: drain it with the "
                "release that wrote it, or name another file."
            )

    def submit(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self._thread.submit(work, self._opened)

    async def run(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._opened)

    async def close(self) -> None:
        def close() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        with suppress(RuntimeError):  # it is closed already
            await asyncio.get_running_loop().run_in_executor(self._thread, close)
        self._thread.shutdown(wait=False)

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise OutboxUnavailable(f"The outbox {self._path} is not open.")
        return self._connection


class _transaction:  # noqa: N801  # used like a function
    """Takes the write lock at once, so that two processes wait for each other instead of failing half-way."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _answer(waiting: Sequence[asyncio.Future[None]], fault: CoordinationError | None) -> None:
    for each in waiting:
        if each.done():
            continue
        if fault is None:
            each.set_result(None)
        else:
            each.set_exception(fault)
