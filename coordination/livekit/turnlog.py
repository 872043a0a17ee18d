"""Writes what is said in a call to the room's turn log, from what passes through the session.

An agent's text is logged when it is generated, not when it was heard: an agent that dies in mid-sentence leaves a trace
of what it wanted to say. How much of it was played follows when it ends. Appends are made one after the other, in
the order in which things were said, by one task; a turn that could not be written is reported and not held on to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Protocol

from livekit.agents import llm
from livekit.agents.voice import io

from coordination.errors import CoordinationError
from coordination.ids import AgentId, Fence, RoleName, TurnId, new_request_id
from coordination.room.texts import sayable
from coordination.room.turns import Speaker, Turn, TurnLog

logger = logging.getLogger(__name__)

PROGRESS_EVERY = timedelta(milliseconds=500)
"""How often the log is told how far an utterance is: by so much less is known of what an agent said before it died."""
FLUSHED_WITHIN = timedelta(seconds=1)
"""How long a handoff waits for what is still to be written."""


class Saves(Protocol):
    """Who keeps beyond the call what is logged. Both return at once."""

    def logged(self, turn: Turn) -> None:
        """A turn stands in the log."""
        ...

    def ended(self, turn: TurnId, played: float, *, interrupted: bool) -> None:
        """An agent's turn came to its end, after so many seconds of it."""
        ...


class TurnWriter:
    """One session's pen. `fence` is the one under which it speaks; without one there is nothing to write."""

    def __init__(self, turns: TurnLog, *, agent: AgentId, role: RoleName, saves: Saves | None = None) -> None:
        self._turns, self._agent, self._role, self._saves = turns, agent, role, saves
        self.fence: Fence | None = None
        self.mine: set[TurnId] = set()
        """Turns that this session wrote: its own history has them already."""
        self._seen: set[str] = set()
        self._unplayed: list[asyncio.Future[Turn | None]] = []
        self._queue: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._task = asyncio.create_task(self._write(), name="baton: write the turn log")

    def caller(self, message: llm.ChatMessage) -> asyncio.Future[Turn | None]:
        """Logs a caller's turn once; the result is its entry, or None if it could not be or need not be written."""
        text = message.text_content or ""
        if not text.strip() or message.id in self._seen:
            done: asyncio.Future[Turn | None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        self._seen.add(message.id)
        return self._append(Speaker.CALLER, text, key=message.id)

    def known(self, message_id: str) -> None:
        """Marks a message as logged already, by whoever heard it."""
        self._seen.add(message_id)

    def agent(self, text: str) -> None:
        """Logs what the agent is about to say."""
        if text.strip():
            self._unplayed.append(self._append(Speaker.AGENT, text, key=new_request_id()))

    def under_way(self, seconds: float) -> None:
        """The newest text is being said, and so much of it was let through."""
        if self._unplayed and self._queue.empty():
            self._queue.put_nowait(partial(self._mark, self._unplayed[-1], seconds, ended=False))

    def played(self, seconds: float, *, interrupted: bool = False) -> None:
        """The newest text has been played for so long. Older ones that were never reported were never heard."""
        if not self._unplayed:
            return
        heard = self._unplayed.pop()
        silent = [(entry, 0.0, True) for entry in self._unplayed]
        self._unplayed.clear()
        for entry, played, cut in [*silent, (heard, seconds, interrupted)]:
            self._queue.put_nowait(partial(self._mark, entry, played, interrupted=cut))

    async def flush(self) -> None:
        """Returns when all that was said so far is written, or after `FLUSHED_WITHIN`."""
        try:
            async with asyncio.timeout(FLUSHED_WITHIN.total_seconds()):
                await self._queue.join()
        except TimeoutError:
            logger.warning("the turn log lags behind; a handoff goes on without waiting for it")

    async def close(self) -> None:
        await self.flush()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _append(self, speaker: Speaker, text: str, *, key: str) -> asyncio.Future[Turn | None]:
        entry: asyncio.Future[Turn | None] = asyncio.get_running_loop().create_future()
        fence = self.fence

        async def append() -> None:
            try:
                if fence is not None:
                    entry.set_result(await self._store(fence, speaker, text, key))
            finally:
                if not entry.done():
                    entry.set_result(None)

        self._queue.put_nowait(append)
        return entry

    async def _store(self, fence: Fence, speaker: Speaker, text: str, key: str) -> Turn:
        turn = await self._turns.append(
            fence=fence, speaker=speaker, agent=self._agent, role=self._role, text=sayable(text), key=key
        )
        self.mine.add(turn.id)
        if self._saves is not None:
            self._saves.logged(turn)
        return turn

    async def _mark(
        self, entry: asyncio.Future[Turn | None], seconds: float, *, ended: bool = True, interrupted: bool = False
    ) -> None:
        turn = await entry
        if turn is None:
            return
        try:
            await self._turns.mark_played(turn.id, seconds, ended=ended)
        finally:
            if ended and self._saves is not None:
                self._saves.ended(turn.id, seconds, interrupted=interrupted)

    async def _write(self) -> None:
        while True:
            step = await self._queue.get()
            try:
                await step()
            except CoordinationError as fault:
                logger.warning("a turn could not be logged: %s", fault)
            finally:
                self._queue.task_done()


class SpokenText(io.TextOutput):
    """Stands before a session's transcript output and logs each utterance when its text is complete."""

    def __init__(self, next_in_chain: io.TextOutput | None, log: TurnWriter) -> None:
        super().__init__(label="Baton", next_in_chain=next_in_chain)
        self._next, self._log = next_in_chain, log
        self._text = ""

    async def capture_text(self, text: str) -> None:
        self._text += text
        if self._next is not None:
            await self._next.capture_text(text)

    def flush(self) -> None:
        text, self._text = self._text, ""
        self._log.agent(text)
        if self._next is not None:
            self._next.flush()
