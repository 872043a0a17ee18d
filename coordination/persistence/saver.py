"""Saves a call that several agents share: each turn of the room's log, once, in its order, with the agent that spoke.

Whoever logs a turn saves it, when it is over: a caller's at once, an agent's when it has been played, so that how much
was heard is saved with it. What an agent leaves behind that is lost, the next one finds in the log and saves. Two may
come to save the same turn; it carries a key that is made of the log's own, and the backend takes the first.

Nothing here is waited for by the voice: turns are handed over in no time, and one task makes them durable.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from coordination.errors import StoreError
from coordination.ids import TurnId
from coordination.persistence.client import BackendClient
from coordination.persistence.outbox.item import turn_key
from coordination.persistence.recorder import Recorder
from coordination.persistence.summary import ENDED, event_of, summarise, told_of
from coordination.persistence.values import ConversationTurn, SavedCall, Speaker, Utterance
from coordination.room.events import Event, Events
from coordination.room.turns import Speaker as Who
from coordination.room.turns import Turn, TurnLog

logger = logging.getLogger(__name__)

_SPEAKERS: Final = {Who.CALLER: Speaker.CALLER, Who.AGENT: Speaker.AGENT}


@dataclass(slots=True)
class _Waiting:
    """A turn that is in the log, and not on its way yet."""

    turn: Turn
    over: bool
    played: float | None = None
    interrupted: bool = False


class CallSaver:
    """One process's pen for one call. It runs a task: made within an event loop, ended by `close` or `finish`."""

    def __init__(self, log: TurnLog, backend: BackendClient, call: SavedCall) -> None:
        self._log, self._backend, self.call = log, backend, call
        self._recorder = Recorder(backend, call.conversation, user=call.user, room=call.room, saved=self._note)
        self._waiting: deque[_Waiting] = deque()
        self._ids: dict[str, TurnId] = {}
        """By key: the turns that are on their way and not noted yet."""
        self._seen: set[TurnId] = set()
        self._told: set[str] = set()

    def logged(self, turn: Turn) -> None:
        """This process has written a turn to the log."""
        if turn.id not in self._seen:
            self._seen.add(turn.id)
            self._waiting.append(_Waiting(turn=turn, over=turn.speaker is Who.CALLER))
            self._send()

    def ended(self, turn: TurnId, played: float, *, interrupted: bool) -> None:
        """An agent's turn has come to its end, after so many seconds of it."""
        for each in self._waiting:
            if each.turn.id == turn:
                each.over, each.played, each.interrupted = True, played, interrupted
        self._send()

    def release(self, *, fence: int | None = None) -> None:
        """Nothing more will be known of the turns (of this fence) that are not over: they are saved as they are."""
        for each in self._waiting:
            if not each.over and fence in (None, each.turn.fence):
                each.over, each.interrupted = True, True
        self._send()

    async def rest(self) -> None:
        """Saves whatever the log has and nobody saved. Raises `StoreError`."""
        self.release()
        for turn in await self._log.unsaved():
            if turn.id not in self._seen:
                self._seen.add(turn.id)
                self._record(turn, turn.played, interrupted=turn.speaker is Who.AGENT and not turn.ended)

    async def tell(self, events: Sequence[Event]) -> None:
        """Tells other services, through the backend's feed, what the room's history says that they have not been told.

        Raises `PersistenceError`. What was told before is told again, and known there by its id.
        """
        for event in told_of(self.call, events):
            if event.id not in self._told:
                await self._backend.save_event(event, user_id=self.call.user)
                self._told.add(event.id)

    async def finish(self, events: Events, *, reason: str, ended: datetime | None = None) -> None:
        """Saves the rest, then the record of the call, and tells its end; returns when all is durable.

        Raises `CoordinationError`.
        """
        try:
            await self.rest()
        finally:
            await self.close()
        history = await events.read()
        summary = summarise(self.call, await self._log.read(), history, reason=reason, ended=ended)
        await self.tell(history)
        await self._backend.save_session(summary)
        end = event_of(self.call, ENDED, summary.ended_at or summary.started_at, reason=reason)
        await self._backend.save_event(end, user_id=self.call.user)

    async def close(self) -> None:
        """Returns when all that was handed over is durable, or after the recorder's patience."""
        self.release()
        await self._recorder.close()

    def _send(self) -> None:
        """In the order of the log: one that is not over holds back what was said behind it."""
        while self._waiting and self._waiting[0].over:
            first = self._waiting.popleft()
            self._record(first.turn, first.played, interrupted=first.interrupted)

    def _record(self, turn: Turn, played: float | None, *, interrupted: bool) -> None:
        key = turn_key(self.call.session, turn.key)
        self._ids[key] = turn.id
        self._recorder.record(as_saved(turn, played, interrupted=interrupted), key=key)

    async def _note(self, key: str) -> None:
        """Without the note another agent may save the turn again, which the backend sees."""
        try:
            await self._log.mark_saved(self._ids.pop(key))
        except StoreError as fault:
            logger.debug("a turn was not noted as saved: %s", fault)


def as_saved(turn: Turn, played: float | None, *, interrupted: bool) -> ConversationTurn:
    """A turn of the log as the backend keeps it."""
    said = Utterance(
        speaker=_SPEAKERS[turn.speaker],
        text=turn.text,
        at=turn.at,
        agent=turn.agent,
        role=turn.role,
        played_seconds=played,
        interrupted=interrupted,
    )
    return ConversationTurn(
        messages=(said,),
        agent=turn.agent,
        role=turn.role,
        fence=turn.fence,
        started_at=turn.at,
        ended_at=turn.at + timedelta(seconds=played) if played is not None else None,
        interrupted=interrupted,
    )
