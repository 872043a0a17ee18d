"""Follows what the backend has erased, so that it is gone from outbox and Redis as well.

The backend refuses for good what comes later (410), so nothing depends on how fast this is. A user who was created
again since is left alone: what an outbox holds of them may be new.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from coordination.persistence.client import BackendClient
from coordination.persistence.outbox.box import Outbox
from coordination.persistence.values import Erasure

logger = logging.getLogger(__name__)

AT_ONCE: Final = 200
"""Erasures that are read with one request."""

Forget = Callable[[Erasure], Awaitable[None]]
"""Removes what a process keeps elsewhere of a user or of conversations."""


class Erasures:
    """One tenant's, as one process follows them. `since` is where the feed was left; None for its beginning."""

    def __init__(self, backend: BackendClient, outbox: Outbox, *, forget: Forget, since: str | None = None) -> None:
        self._backend, self._outbox, self._forget = backend, outbox, forget
        self.cursor = since

    async def follow(self) -> int:
        """Forgets whatever was erased since the last time; returns how many items of the outbox went.

        Raises `BackendError`, `OutboxError` or what `forget` raises; then the same erasures come again.
        """
        removed = 0
        while True:
            found, cursor = await self._backend.read_erasures(self.cursor, limit=AT_ONCE)
            for erasure in found:
                removed += await self._carry_out(erasure)
            self.cursor = cursor
            if len(found) < AT_ONCE:
                return removed

    async def _carry_out(self, erasure: Erasure) -> int:
        removed = 0
        if erasure.user is not None and await self._backend.get_user_context(erasure.user) is not None:
            erasure = erasure.model_copy(update={"user": None})
        if erasure.user is not None:
            removed += await self._outbox.forget(erasure.user)
        for conversation in erasure.conversations:
            removed += await self._outbox.forget_conversation(conversation)
        await self._forget(erasure)
        if removed:
            logger.info("items of the outbox went with what the backend erased", extra={"items": removed})
        return removed


def concerns(erasure: Erasure, *, conversation: str, user: str | None) -> bool:
    """Whether a call is of what was erased."""
    return conversation in erasure.conversations or (user is not None and user == erasure.user)


async def nothing_else(_: Erasure) -> None:
    """For a process that keeps nothing but its outbox."""
