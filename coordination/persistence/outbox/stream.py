"""The outbox in Redis: one stream per conversation, acknowledged by removal, drained by any worker.

Durable means: Redis has it when `append` returns. The process may die then; what a Redis that dies keeps is decided by
its own persistence (appendonly). A conversation is claimed for a time, by the server's clock; see `store/keys.py` for
the keys, which have no TTL.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar, cast

from coordination.errors import InvalidArgument, StoreError
from coordination.ids import DEFAULT_TENANT, Tenant
from coordination.persistence.errors import OutboxUnavailable
from coordination.persistence.outbox.box import BATCH, CLAIM, Claim, Failure, OutboxStatistics, SetAside
from coordination.persistence.outbox.item import OutboxItem, conversation_of, user_of
from coordination.store.scripts import Script
from coordination.store.store import Store

_APPEND: Final = Script.load("outbox/append")
_CLAIM: Final = Script.load("outbox/claim")
_SETTLE: Final = Script.load("outbox/settle")
_REPLAY: Final = Script.load("outbox/replay")
_FORGET: Final = Script.load("outbox/forget")
NOTHING_DUE: Final = timedelta(seconds=5)
"""When to look again at an empty outbox: what another process appended and could not deliver is found then."""
_MICROSECOND: Final = timedelta(microseconds=1)

Answer = TypeVar("Answer")


class StreamOutbox:
    """One tenant's items in Redis. Give it an open store, or let `open` connect one of its own from a URL."""

    def __init__(self, store: Store, *, tenant: Tenant = DEFAULT_TENANT, owned: bool = False) -> None:
        """With `owned` the store is opened and closed with the outbox."""
        self._store, self._owned = store, owned
        self._keys = store.keys.outbox(tenant)
        self._entries: dict[str, Sequence[str]] = {}
        """Ids of the stream's entries of each claim, by its token."""

    @classmethod
    def at(
        cls, url: str, *, tenant: Tenant = DEFAULT_TENANT, prefix: str = "baton", allow_eviction: bool = False
    ) -> Self:
        """An outbox with a connection of its own. Raises `InvalidSettings` for what is no URL."""
        return cls(Store(url, prefix=prefix, allow_eviction=allow_eviction), tenant=tenant, owned=True)

    async def open(self) -> Self:
        """Raises `OutboxUnavailable` if Redis cannot be used."""
        if self._owned:
            try:
                await self._store.open()
            except StoreError as error:
                raise _unavailable("cannot be opened", error) from error
        return self

    async def close(self) -> None:
        if self._owned:
            await self._store.close()

    async def append(self, item: OutboxItem) -> None:
        arguments = (self._keys.items, item.conversation, item.encode())
        await self._run(_APPEND, (self._keys.due,), arguments, failure="was not written")

    async def claim(self) -> Claim | timedelta:
        token = secrets.token_hex(8)
        arguments = (self._keys.items, token, CLAIM // _MICROSECOND, BATCH)
        reply: Any = await self._run(_CLAIM, (self._keys.due, self._keys.claims), arguments, failure="was not read")
        if not isinstance(reply, list):
            wait = int(reply)
            return NOTHING_DUE if wait < 0 else min(NOTHING_DUE, wait * _MICROSECOND)
        conversation, attempts, flat = cast("tuple[bytes, int, list[bytes]]", reply)
        self._entries[token] = [entry.decode() for entry in flat[::2]]
        items = tuple(OutboxItem.decode(text) for text in flat[1::2])
        return Claim(conversation=conversation.decode(), token=token, items=items, attempts=int(attempts))

    async def settle(self, claim: Claim, *, delivered: int, failure: Failure | None = None) -> None:
        entries = self._entries.pop(claim.token, ())
        poison = entries[delivered] if failure is not None and failure.poison else ""
        retries = failure is not None and not failure.poison
        wait = failure.retry_in // _MICROSECOND if failure is not None and retries else -1
        attempts = 1 if delivered else claim.attempts + 1
        reason = failure.reason if failure is not None else ""
        arguments = (self._keys.items, claim.conversation, claim.token, wait, attempts, poison, reason)
        keys = (self._keys.due, self._keys.claims, self._keys.set_aside)
        await self._run(_SETTLE, keys, (*arguments, *entries[:delivered]), failure="was not written")

    async def statistics(self) -> OutboxStatistics:
        waiting, oldest = 0, None
        conversations = await self._conversations(-1)
        for name in conversations:
            waiting += int(await self._command("XLEN", self._keys.items + name))
            for entry, _ in await self._range(self._keys.items + name, 1):
                at = _moment(entry)
                oldest = at if oldest is None else min(oldest, at)
        aside = int(await self._command("XLEN", self._keys.set_aside))
        return OutboxStatistics(waiting=waiting, conversations=len(conversations), set_aside=aside, oldest=oldest)

    async def waiting(self, limit: int = 100) -> Sequence[OutboxItem]:
        found: list[OutboxItem] = []
        for name in await self._conversations(limit):
            entries = await self._range(self._keys.items + name, limit - len(found))
            found += [OutboxItem.decode(fields["item"]) for _, fields in entries]
            if len(found) >= limit:
                break
        return found

    async def set_aside(self, limit: int = 100) -> Sequence[SetAside]:
        return [
            SetAside(item=OutboxItem.decode(fields["item"]), reason=fields["reason"], at=_moment(entry))
            for entry, fields in await self._range(self._keys.set_aside, limit)
        ]

    async def replay(self, item_id: str | None = None) -> int:
        replayed = 0
        for entry, fields in await self._range(self._keys.set_aside, None):
            item = OutboxItem.decode(fields["item"])
            if item_id is not None and item.id != item_id:
                continue
            keys = (self._keys.due, self._keys.set_aside)
            arguments = (self._keys.items, entry, item.conversation)
            replayed += int(await self._run(_REPLAY, keys, arguments, failure="was not written"))
        return replayed

    async def forget(self, user: str) -> int:
        if not user:
            raise InvalidArgument("Name the user whose items are to be removed.")
        names = ("", *await self._conversations(-1))
        return sum([await self._remove(name, lambda item: user_of(item) == user) for name in names])

    async def forget_conversation(self, conversation: str) -> int:
        aside = await self._remove("", lambda item: conversation_of(item) == conversation)
        return aside + await self._remove(conversation, lambda _: True)

    async def _remove(self, conversation: str, wanted: Callable[[str], bool]) -> int:
        """Of one conversation, or with "" of what was set aside."""
        entries = await self._range(self._keys.items + conversation if conversation else self._keys.set_aside, None)
        theirs = [entry for entry, fields in entries if wanted(fields["item"])]
        if not theirs:
            return 0
        keys = (self._keys.due, self._keys.claims, self._keys.set_aside)
        return int(await self._run(_FORGET, keys, (self._keys.items, conversation, *theirs), failure="was not written"))

    async def _conversations(self, limit: int) -> list[str]:
        """Those with undelivered items, the one that is due first in front; all with -1."""
        last = limit - 1 if limit >= 0 else -1
        names: list[bytes] = await self._command("ZRANGE", self._keys.due, 0, last)
        return [name.decode() for name in names]

    async def _range(self, stream: str, limit: int | None) -> list[tuple[str, dict[str, str]]]:
        bound = () if limit is None else ("COUNT", limit)
        reply: list[tuple[bytes, list[bytes]]] = await self._command("XRANGE", stream, "-", "+", *bound)
        return [
            (entry.decode(), {k.decode(): v.decode() for k, v in zip(flat[::2], flat[1::2], strict=True)})
            for entry, flat in reply
        ]

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int], *, failure: str) -> Any:
        try:
            return await self._store.run(script, keys, arguments)
        except StoreError as error:
            raise _unavailable(failure, error) from error

    async def _command(self, *command: str | int) -> Any:
        try:
            return await self._store.command(*command)
        except StoreError as error:
            raise _unavailable("was not read", error) from error


def _unavailable(failure: str, error: StoreError) -> OutboxUnavailable:
    return OutboxUnavailable(f"The outbox in Redis {failure}: {error}")


def _moment(entry: str) -> datetime:
    """When a stream's entry was added, by the server's clock: the first part of its id."""
    return datetime.fromtimestamp(int(entry.partition("-")[0]) / 1000, UTC)
