"""What an outbox promises, wherever it keeps its items.

- `append` returns when the item is durable: a process that is killed on its next instruction has lost nothing.
- Items of one conversation are handed out in the order of their appends, to one drainer at a time. A claim ends by
  itself, so a drainer that dies holds up its conversation for `CLAIM` and no longer.
- An item leaves only when it was delivered, was set aside by name, or was forgotten with its user: at least once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from coordination.persistence.outbox.item import OutboxItem

CLAIM = timedelta(seconds=30)
"""How long a drainer has a conversation to itself: longer than the delivery of one item may take."""
BATCH = 20
"""Most items of one claim. Small, so that a long backlog of one conversation does not outlast its claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The oldest items of one conversation, for one drainer."""

    conversation: str
    token: str
    items: Sequence[OutboxItem]
    attempts: int
    """How often the first of them was tried in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the item behind the delivered ones was not delivered."""

    reason: str
    poison: bool
    """The item itself is wrong: it is set aside, so that what follows it can be delivered."""
    retry_in: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An item that the backend does not take. It stays until it is replayed."""

    item: OutboxItem
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStatistics:
    """What lies in the outbox now."""

    waiting: int
    conversations: int
    set_aside: int
    oldest: datetime | None
    """When the item was appended that has waited longest."""


class Outbox(Protocol):
    """One tenant's outbox. Every method raises `OutboxUnavailable` where the items cannot be reached."""

    async def append(self, item: OutboxItem) -> None:
        """Returns when the item is durable. Cancelled, it may or may not be."""
        ...

    async def claim(self) -> Claim | timedelta:
        """The items that are due and longest so, or the time after which to ask again."""
        ...

    async def settle(self, claim: Claim, *, delivered: int, failure: Failure | None = None) -> None:
        """Removes the first `delivered` items, and says what became of the next one. Ends the claim."""
        ...

    async def statistics(self) -> OutboxStatistics: ...

    async def waiting(self, limit: int = 100) -> Sequence[OutboxItem]:
        """Undelivered items, the oldest of each conversation first."""
        ...

    async def set_aside(self, limit: int = 100) -> Sequence[SetAside]:
        """The items that the backend does not take, oldest first."""
        ...

    async def replay(self, item_id: str | None = None) -> int:
        """Puts one item that was set aside, or all of them, back at the end of its conversation; returns how many."""
        ...

    async def forget(self, user: str) -> int:
        """Removes whatever belongs to the user, delivered or not; returns how many items that were."""
        ...

    async def forget_conversation(self, conversation: str) -> int:
        """Removes whatever belongs to the conversation, delivered or not; returns how many items that were."""
        ...

    async def close(self) -> None: ...
