"""What the caller is saying right now, and whose it is when the floor moves in the middle of it.

The rule: an utterance belongs to the agent that held the floor when it began. That agent finishes transcribing it, and
writes it to the turn log; the agent that holds the floor at its end answers it, once. The framework drops words around
a swap of agents, so the swap waits: the old agent stays on, voiceless, until its utterance is complete, and the new
one does not listen until it has been told what was said. At any moment one agent transcribes, never two.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession, UserInputTranscribedEvent, UserStateChangedEvent
from livekit.agents.voice.events import EventTypes
from pydantic import BaseModel, ConfigDict, ValidationError

from coordination.livekit.identity import is_agent
from coordination.livekit.room_events import on_room

logger = logging.getLogger(__name__)

TOPIC = "baton.utterance"
UNDECIDED = timedelta(seconds=1.5)
"""How long after the end of speech everything waits for its words; noise never gets any."""
WORDS_WITHIN = timedelta(seconds=8)
"""How long after the end of speech words that come are still taken for its words: speech to text can be late."""
LATE = timedelta(milliseconds=800)
"""Voice activity is noticed late: so long after the floor has moved, an utterance may turn out to have begun before."""
SCHEDULED_WITHIN = timedelta(milliseconds=50)
"""From the end of an agent's turn hook until the framework shows the reply as its current speech."""
FINISHED_WITHIN = timedelta(seconds=30)
"""The longest that an utterance is waited for; then the new agent listens for itself."""


def on_session(session: AgentSession[Any], event: EventTypes, handler: Callable[..., None]) -> None:
    """Calls `handler` for each `event` of the session, for as long as it lives."""
    emitter: Any = session  # The SDK leaves the callbacks of its emitter untyped.
    emitter.on(event, handler)


class UtteranceTracker:
    """Whether the caller is in the middle of something, by the session's own events.

    `open` is true from the first sign of speech until the turn was completed, or until probably no words come.
    `awaited` is true for longer: words that do come are not lost. Both err on the side of true.
    """

    def __init__(self, session: AgentSession[Any]) -> None:
        self._speaking = False
        self._words = False
        self._ended: float | None = None
        self._answering = 0
        self.began: float | None = None
        """`time.time()` at which the open utterance began, as far as known."""
        self.changed = asyncio.Event()
        on_session(session, "user_state_changed", self._on_state)
        on_session(session, "user_input_transcribed", self._on_words)

    @property
    def open(self) -> bool:
        if self._speaking or self._words:
            return True
        return self._ended_within(UNDECIDED)

    @property
    def awaited(self) -> bool:
        """Whether words may still come of what was begun: the utterance is open, or was so a moment ago."""
        return self.open or self._ended_within(WORDS_WITHIN)

    def began_by(self, moment: float) -> bool:
        """Whether an utterance whose words may still come had begun at that time (`time.time()`)."""
        return self.awaited and (self.began is None or self.began <= moment)

    def _ended_within(self, duration: timedelta) -> bool:
        return self._ended is not None and time.time() - self._ended < duration.total_seconds()

    @contextmanager
    def answering(self) -> Generator[None]:
        """While the session decides on its reply to a completed turn: nobody speaks yet, but somebody is about to."""
        self._answering += 1
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(SCHEDULED_WITHIN.total_seconds(), self._answered)

    @property
    def being_answered(self) -> bool:
        return self._answering > 0

    def _answered(self) -> None:
        self._answering -= 1

    def completed(self) -> None:
        """The session has made a turn of it."""
        self._words = False
        self._ended = None
        if not self._speaking:
            self.began = None
        self.changed.set()

    def _on_state(self, event: UserStateChangedEvent) -> None:
        if event.new_state == "speaking":
            if not self.awaited:
                self.began = event.created_at
            self._speaking = True
        elif self._speaking:
            self._speaking = False
            self._ended = time.time()
        self.changed.set()

    def _on_words(self, event: UserInputTranscribedEvent) -> None:
        if event.transcript:
            if not self.awaited:
                self.began = time.time()
            self._words = True
            self.changed.set()


class UtteranceState(StrEnum):
    OPEN = "open"
    """The sender goes on transcribing an utterance that began before the floor moved."""
    DONE = "done"
    """It is complete, and stands in the turn log if it had words."""


class UtteranceNote(BaseModel):
    """What the old agent tells the new one about the caller's utterance; a data message on `TOPIC`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 1
    handoff: str
    state: UtteranceState
    turn: str = ""
    text: str = ""


async def tell(room: rtc.Room, to: str, note: UtteranceNote) -> None:
    """Sends a note to the participant `to`. A room that is gone is no error: nobody waits there any more."""
    try:
        await room.local_participant.publish_data(
            note.model_dump_json(), reliable=True, destination_identities=[to], topic=TOPIC
        )
    except rtc.participant.PublishDataError:
        logger.warning("an utterance could not be announced to the next agent")


def on_note(room: rtc.Room, listener: Callable[[UtteranceNote], None]) -> Callable[[], None]:
    """Calls `listener` with each note from an agent; the returned function ends that."""

    def received(packet: rtc.DataPacket) -> None:
        if packet.topic != TOPIC or not is_agent(packet.participant):
            return
        try:
            note = UtteranceNote.model_validate_json(packet.data)
        except ValidationError:
            logger.warning("a message on %s cannot be read and is ignored", TOPIC)
            return
        if note.v == 1:
            listener(note)

    return on_room(room, "data_received", received)


class CarriedUtterance:
    """The new agent's side: an utterance that the old agent is still transcribing."""

    def __init__(self, handoff: str) -> None:
        self.handoff = handoff
        self.opened = asyncio.Event()
        self.done = asyncio.Event()
        self.result: UtteranceNote | None = None

    def note(self, note: UtteranceNote) -> None:
        """Takes a note; words that came after all, when none were expected any more, open it again."""
        if note.handoff != self.handoff:
            return
        if note.state is UtteranceState.DONE:
            self.result = note
            self.done.set()
        else:
            self.result = None
            self.done.clear()
        self.opened.set()

    def abandoned(self) -> None:
        """The old agent is gone: nothing more will come."""
        self.done.set()

    @property
    def pending(self) -> bool:
        return self.opened.is_set() and not self.done.is_set()

    @property
    def comes_first(self) -> bool:
        """The caller is to be heard out, or answered, before the new agent says anything by itself."""
        return self.pending or (self.result is not None and bool(self.result.text))

    async def finished(self) -> UtteranceNote | None:
        """Waits for the end of an open utterance. None: it never came, and the new agent must listen for itself."""
        try:
            async with asyncio.timeout(FINISHED_WITHIN.total_seconds()):
                await self.done.wait()
        except TimeoutError:
            self.done.set()
        return self.result
