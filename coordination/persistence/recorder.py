"""Saves what is said in one conversation in the background: in order, without ever holding up whoever says it.

An utterance is handed over in no time and saved by one task. It is durable a moment later; should the outbox itself be
away, it is kept in memory and tried again until it can be, in order, for as long as the recorder is open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, Protocol

from coordination.ids import new_request_id
from coordination.persistence.errors import PersistenceError
from coordination.persistence.values import ConversationTurn

logger = logging.getLogger(__name__)

AGAIN: Final = timedelta(seconds=0.5)
CLOSED_WITHIN: Final = timedelta(seconds=3)
"""How long closing waits for an outbox that is away."""


class Saves(Protocol):
    """What a recorder needs of a backend client."""

    async def save_conversation_turn(
        self,
        conversation_id: str,
        turn: ConversationTurn,
        *,
        user_id: str | None = None,
        room: str | None = None,
        key: str | None = None,
    ) -> None: ...


class Recorder:
    """One conversation's way into the outbox."""

    def __init__(
        self,
        backend: Saves,
        conversation: str,
        *,
        user: str | None = None,
        room: str | None = None,
        saved: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`saved` is called with the key of each turn that has become durable, one after the other."""
        self._backend, self._conversation, self._user, self._room = backend, conversation, user, room
        self._told = saved
        self._waiting: asyncio.Queue[tuple[ConversationTurn, str]] = asyncio.Queue()
        self.recorded = 0
        """Turns that were handed over."""
        self._task = asyncio.create_task(self._work(), name="baton: save the conversation")

    def record(self, turn: ConversationTurn, *, key: str | None = None) -> None:
        """Returns at once. `key` makes a repeated turn the same as one."""
        self.recorded += 1
        self._waiting.put_nowait((turn, key or new_request_id()))

    async def close(self) -> None:
        """Returns when all that was recorded is durable, or after `CLOSED_WITHIN`: the rest is reported as lost."""
        try:
            async with asyncio.timeout(CLOSED_WITHIN.total_seconds()):
                await self._waiting.join()
        except TimeoutError:
            logger.error("turns could not be saved, and are lost", extra={"turns": self._waiting.qsize() + 1})
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            turn, key = await self._waiting.get()
            while not await self._saved(turn, key):
                await asyncio.sleep(AGAIN.total_seconds())
            self._waiting.task_done()

    async def _saved(self, turn: ConversationTurn, key: str) -> bool:
        """Whether this turn is done with: saved, or such that it can never be."""
        try:
            await self._backend.save_conversation_turn(
                self._conversation, turn, user_id=self._user, room=self._room, key=key
            )
        except PersistenceError as fault:
            logger.warning("a turn is not saved yet: %s", fault)
            return not fault.retryable
        except ValueError:
            logger.exception("a turn cannot be saved")
        else:
            if self._told is not None:
                await self._told(key)
        return True
