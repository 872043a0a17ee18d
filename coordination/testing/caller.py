"""A caller in a real room: speaks with a synthetic voice, listens, waits, interrupts, hangs up, comes back, types.

It takes notes of what it does and keeps what it hears; nothing that agents say about themselves enters the record,
apart from who they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

from livekit import rtc

from coordination.errors import CoordinationError, InvalidArgument
from coordination.testing.calls import Call, ExpectedAnswer, FloorChange, HandoffTiming, Turn, TurnKind
from coordination.testing.happenings import Happening, Tell, What, tell_nobody
from coordination.testing.listening import Ears, Heard, Listener
from coordination.testing.microphone import Microphone
from coordination.testing.recording import compose
from coordination.testing.speech import CALLER, Voice, synthesize

CHAT_TOPIC = "lk.chat"
_TICK = 0.02
_REACTION = 0.6
"""Seconds from the caller's first word in which nobody can be answering it yet."""


class CallFailed(CoordinationError):
    """The caller could not join the room: it is gone, or the server is down, or the token is refused."""

    retryable = True


class SimulatedCaller:
    """A caller for as long as a test call lasts.

    `token` is asked for a new token for each connection; the identity in it must be `identity`. Use it as a context
    manager, which hangs up at the end and lets no task live on:

        async with SimulatedCaller(url, token=..., identity="caller") as caller:
            await caller.join()
            await caller.wait_for_answer(within=timedelta(seconds=10))
            await caller.say("I have a question about my bill", expected=ExpectedAnswer(role="billing"))
            await caller.wait_for_answer(role="billing")
            await caller.hang_up()
        findings = analyse(caller.call())
    """

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[], str],
        identity: str,
        voice: Voice = CALLER,
        tell: Tell = tell_nobody,
    ) -> None:
        self.identity = identity
        self.heard = Heard()
        self._url, self._token, self._voice, self._tell = url, token, voice, tell
        self._turns: list[Turn] = []
        self._absences: list[tuple[float, float]] = []
        self._started: float | None = None
        self._ended: float | None = None
        self._room: rtc.Room | None = None
        self._listener: Listener | None = None
        self._microphone: Microphone | None = None

    async def __aenter__(self) -> SimulatedCaller:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.hang_up()

    @property
    def connected(self) -> bool:
        return self._room is not None

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(self._turns)

    async def join(self, *, expected: ExpectedAnswer | None = None) -> Turn:
        """Connects, listens and opens the microphone; the second time it is the caller's return."""
        if self._room is not None:
            raise InvalidArgument("The caller is in the room already: hang up first")
        back = self._started is not None
        room = rtc.Room()
        listener = Listener(room, self.heard, self._ears())
        microphone = Microphone(speaker=self.identity)
        self._room, self._listener, self._microphone = room, listener, microphone
        now = time.monotonic()
        if back and self._ended is not None:
            self._absences.append((self._ended, now))
        self._started = self._started if self._started is not None else now
        self._ended = None
        self.heard.ears.append(microphone.ear)
        try:
            await room.connect(self._url, self._token())
        except rtc.ConnectError as error:
            raise CallFailed(f"The caller cannot join the room at {self._url}: {error.message}") from error
        await microphone.publish(room)
        self._note(What.CALLER_JOINS)
        listener.look_around()
        return self._turn(TurnKind.RETURN if back else TurnKind.OPENING, time.monotonic(), expected=expected)

    async def hang_up(self) -> None:
        """Leaves the room as a phone does: at once. Harmless when the caller is not there."""
        room, listener, microphone = self._room, self._listener, self._microphone
        if room is None:
            return
        self._room = self._listener = self._microphone = None
        self._ended = time.monotonic()
        self._note(What.CALLER_HANGS_UP)
        if microphone is not None:
            await microphone.close()
        if listener is not None:
            await listener.close()
        await room.disconnect()

    async def say(self, text: str, *, expected: ExpectedAnswer | None = None, barge_in: bool = False) -> Turn:
        """Speaks in real time and returns when the last sound was sent."""
        microphone = self._microphone
        if microphone is None:
            raise InvalidArgument(f"The caller cannot say {text!r}: it is not in the room")
        speech = await asyncio.to_thread(synthesize, text, voice=self._voice)
        self._note(What.CALLER_BARGES_IN if barge_in else What.CALLER_SAYS, text=text)
        started, ended = await microphone.speak(speech)
        return self._turn(TurnKind.SPOKEN, started, ended, text=text, expected=expected, barge_in=barge_in)

    async def type(self, text: str, *, expected: ExpectedAnswer | None = None) -> Turn:
        """Sends text as a chat message."""
        room = self._room
        if room is None:
            raise InvalidArgument(f"The caller cannot type {text!r}: it is not in the room")
        self._note(What.CALLER_TYPES, text=text)
        await room.local_participant.send_text(text, topic=CHAT_TOPIC)
        return self._turn(TurnKind.TYPED, time.monotonic(), text=text, expected=expected)

    async def be_silent(self, duration: timedelta, *, expected: ExpectedAnswer | None = None) -> Turn:
        """Says nothing for so long."""
        self._note(What.CALLER_SILENT, text=f"{duration.total_seconds():g} s")
        turn = self._turn(TurnKind.SILENCE, time.monotonic(), expected=expected)
        await asyncio.sleep(duration.total_seconds())
        return turn

    async def wait_for_answer(
        self,
        *,
        role: str | None = None,
        within: timedelta = timedelta(seconds=20),
        settle: timedelta = timedelta(seconds=1.2),
        longest: timedelta = timedelta(seconds=60),
    ) -> bool:
        """Waits until `role` (or anybody) has spoken since the last turn and nobody has for `settle`.

        False if the role did not begin within `within` after the turn's end, or the talk did not end within `longest`.
        """
        turn = self._turns[-1]
        heard_from = min(turn.ended, turn.started + _REACTION)
        if not await self._until(lambda: self.heard.began_after(heard_from, role), turn.ended + within.total_seconds()):
            self._note(What.MISSED, who=role or "", text="no answer")
            return False
        if not await self._until(
            lambda: time.monotonic() - (self.heard.last_audible() or 0.0) > settle.total_seconds(),
            time.monotonic() + longest.total_seconds(),
        ):
            self._note(What.MISSED, who=role or "", text="the answer does not end")
            return False
        return True

    async def wait_for_speech(
        self, *, role: str | None = None, lasting: timedelta, within: timedelta = timedelta(seconds=20)
    ) -> bool:
        """Waits until `role` (or anybody) has begun to answer the last turn and has spoken for `lasting`."""
        turn = self._turns[-1]
        heard_from = min(turn.ended, turn.started + _REACTION)

        def speaks() -> bool:
            since = self.heard.speaking_since(role)
            if since is None or since < heard_from:
                return False
            return time.monotonic() - since >= lasting.total_seconds()

        deadline = turn.ended + (within + lasting).total_seconds()
        if await self._until(speaks, deadline):
            return True
        self._note(What.MISSED, who=role or "", text="nobody to interrupt")
        return False

    def call(self, *, handoffs: tuple[HandoffTiming, ...] = ()) -> Call:
        """The call so far: what the caller did and heard. `handoffs` is what Baton says about them."""
        if self._started is None:
            raise InvalidArgument("There is no call yet: the caller has not joined a room")
        for ear in self.heard.ears:
            ear.role = self.heard.roles.get(ear.speaker)
        ended = self._ended if self._ended is not None else time.monotonic()
        return Call(
            recording=compose(self.identity, self.heard.ears, started=self._started, ended=ended),
            turns=self.turns,
            absences=tuple(self._absences),
            floor=tuple(self.heard.floor),
            joined=dict(self.heard.joined),
            handoffs=handoffs,
        )

    async def _until(self, holds: Callable[[], bool], deadline: float) -> bool:
        while not holds():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_TICK)
        return True

    def _turn(
        self,
        kind: TurnKind,
        started: float,
        ended: float | None = None,
        *,
        text: str = "",
        expected: ExpectedAnswer | None = None,
        barge_in: bool = False,
    ) -> Turn:
        turn = Turn(
            kind=kind,
            started=started,
            ended=started if ended is None else ended,
            text=text,
            barge_in=barge_in,
            expected=expected,
        )
        self._turns.append(turn)
        return turn

    def _ears(self) -> Ears:
        return Ears(
            on_joined=lambda identity: self._note(What.AGENT_JOINS, who=self.heard.role_of(identity)),
            on_left=lambda identity: self._note(What.AGENT_LEAVES, who=self.heard.role_of(identity)),
            on_floor=self._floor,
            on_text=self._text,
        )

    def _floor(self, change: FloorChange) -> None:
        self._note(What.FLOOR, who=change.role or change.agent, fence=change.fence)

    def _text(self, identity: str, text: str) -> None:
        if identity != self.identity:
            self._note(What.AGENT_SAYS, who=self.heard.role_of(identity), text=text)
            return
        # What is understood of the caller is published in the caller's name; who did so is whoever has the floor.
        holder = self.heard.floor[-1].role if self.heard.floor else None
        self._note(What.UNDERSTOOD, who=holder or "", text=text)

    def remark(self, what: What, *, text: str) -> None:
        """Puts something into the notes that the caller did not do."""
        self._note(what, text=text)

    def _note(self, what: What, *, who: str = "", text: str = "", fence: int | None = None) -> None:
        at = timedelta(seconds=time.monotonic() - self._started) if self._started is not None else timedelta(0)
        self._tell(Happening(what=what, at=at, who=who, text=text, fence=fence))
