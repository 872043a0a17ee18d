"""What a session says and hears while it has the floor, and how it comes to that.

Hooks of each agent that is put on are followed, on the instance: `on_enter`, so that it means "you have the floor" and
an agent which enters in mid-conversation does not greet, its counterpart `on_exit`, and `on_user_turn_completed`, so
that each caller turn is logged, and answered only by the agent that has the floor when it ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from livekit.agents import Agent, StopResponse, llm
from livekit.agents.voice import SpeechHandle

from coordination.ids import TurnId
from coordination.livekit.entry import ANSWER, Entry, EntryKind
from coordination.livekit.resume import Resume, ResumeAction
from coordination.livekit.utterance import CarriedUtterance, UtteranceNote

if TYPE_CHECKING:
    from coordination.livekit.session import CoordinatedSession

logger = logging.getLogger(__name__)

MARGIN = 0.25
"""Seconds of caller audio before the grant that a new agent hears: nothing that began later may be lost to rounding."""

LOGGED_WITHIN = 0.05
"""Seconds that the log may take before a caller's turn is answered all the same: it takes less than a millisecond, and
an answer does not wait for a Redis that is away."""

_HOOKED = "_baton_hooked"


class Conversation:
    """One session's share in the conversation. The session calls it at each change of the floor."""

    def __init__(self, session: CoordinatedSession[Any]) -> None:
        self._session = session
        self.entry: Entry | None = None
        self.carried: tuple[str, str] | None = None
        """Id and text of a turn that was completed without the floor, until the next agent has been told."""
        self._carrying: asyncio.Task[None] | None = None
        self._promised: asyncio.Future[None] | None = None
        """Pending while the agent is on and the floor is only promised; done when it came, or will not."""

    # -- hooks ------------------------------------------------------------------------------------

    def attach(self, agent: Agent) -> None:
        """Follows the hooks of an agent; again for the same one does nothing."""
        if getattr(agent, _HOOKED, None) is self:
            return
        on_enter, on_exit, on_turn = agent.on_enter, agent.on_exit, agent.on_user_turn_completed
        inside = False

        async def entered() -> None:
            nonlocal inside
            inside = await self._may_enter()
            if inside:
                await self._entered(on_enter)

        async def left() -> None:
            nonlocal inside
            was_inside, inside = inside, False
            if was_inside:
                await on_exit()

        async def turn_completed(turn_ctx: llm.ChatContext, new_message: llm.ChatMessage) -> None:
            await self._turn_completed(turn_ctx, new_message, on_turn)

        hooks = {_HOOKED: self, "on_enter": entered, "on_exit": left, "on_user_turn_completed": turn_completed}
        for name, hook in hooks.items():
            setattr(agent, name, hook)

    async def _turn_completed(
        self,
        turn_ctx: llm.ChatContext,
        message: llm.ChatMessage,
        original: Callable[[llm.ChatContext, llm.ChatMessage], Awaitable[None]],
    ) -> None:
        seat = self._session.seat
        if seat is None:
            await original(turn_ctx, message)
            return
        if seat.leaving is not None and not seat.leaving.owns_utterance:
            # It began after the floor had moved: the new agent hears it too, and has it.
            self._session.utterance.completed()
            raise StopResponse
        with self._session.utterance.answering():
            logged = seat.turns.caller(message)
            # On the log before anybody answers it: an agent that dies while it thinks leaves the question behind.
            await asyncio.wait([logged], timeout=LOGGED_WITHIN)
            if not seat.holds:
                # The words are the caller's, whoever answers them; this agent may not, and must not keep them either.
                turn = await logged
                self.carried = (turn.id if turn else message.id, message.text_content or "")
                self._session.utterance.completed()
                raise StopResponse
            self._session.utterance.completed()
            self.settle()
            await original(turn_ctx, message)

    # -- coming on --------------------------------------------------------------------------------

    def promise(self, entry: Entry) -> None:
        """The floor will be this session's: its agent is being put on, and enters when the floor is there."""
        self.entry = entry
        self._promised = asyncio.get_running_loop().create_future()

    def enter(self, entry: Entry, *, carried: CarriedUtterance | None) -> None:
        """The floor is this session's: its agent is on, or being put on."""
        if self.entry is not entry:
            self._hold_back()
        self.entry = entry
        self.carried = None
        self._resolve()
        self._carry(lambda: self._begin(entry, carried))

    def leave(self) -> None:
        """The floor is lost, or will not come."""
        self.entry = None
        self._resolve()
        if self._carrying is not None:
            self._carrying.cancel()
            self._carrying = None

    def _resolve(self) -> None:
        promised, self._promised = self._promised, None
        if promised is not None and not promised.done():
            promised.set_result(None)

    def _hold_back(self) -> None:
        """Takes back an opening that waits for the floor."""
        if self.entry is not None and self.entry.spoke is not None:
            self.entry.spoke.interrupt(force=True)
            self.entry.spoke = None

    def settle(self) -> None:
        """The caller has spoken: what the agent says from now on is no greeting."""
        if self.entry is not None:
            self.entry.settled = True

    async def _begin(self, entry: Entry, carried: CarriedUtterance | None) -> None:
        session, granted = self._session, time.monotonic()
        await session.stage.settled()
        if carried is not None and carried.comes_first:
            await self._hear_out(entry, carried)
        else:
            handed = entry.kind in (EntryKind.HANDOFF, EntryKind.RELOCATION)
            session.listen(since=granted - MARGIN if handed else None)

    def yield_to(self, carried: CarriedUtterance) -> None:
        """The old agent reports that the caller has begun to speak under it: that comes first."""
        entry = self.entry
        if entry is None:
            return
        if self._promised is not None:
            self._hold_back()
            return
        self._session.hold_caller()
        self._session.interrupt(force=True)
        self._carry(lambda: self._hear_out(entry, carried))

    async def _hear_out(self, entry: Entry, carried: CarriedUtterance) -> None:
        """Waits until the old agent knows what the caller said, and answers that. Opens if there were no words."""
        entry.settled = entry.settled or entry.spoke is not None
        note = await carried.finished()
        if note is None:
            self._session.listen(since=None)
        elif note.text:
            entry.settled = True
            self._session.listen(since=time.monotonic() - MARGIN)
            self._answer(note)
        else:
            self._session.listen(since=time.monotonic() - MARGIN)
            if entry.spoke is None or entry.spoke.interrupted:
                self._open(entry)

    def _answer(self, note: UtteranceNote) -> None:
        seat = self._session.seat
        message = llm.ChatMessage(role="user", content=[note.text])
        if note.turn:
            message = llm.ChatMessage(id=note.turn, role="user", content=[note.text])
        if seat is not None:
            seat.turns.known(message.id)
            seat.history.added(TurnId(message.id))
        self._session.reply(user_input=message)

    def _carry(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._carrying is not None:
            self._carrying.cancel()

        async def run() -> None:
            try:
                await work()
            except Exception:
                logger.exception("the caller could not be heard out; listening as usual")
                self._session.listen(since=None)

        self._carrying = asyncio.create_task(run(), name="baton: come before the caller")

    # -- opening ----------------------------------------------------------------------------------

    async def _may_enter(self) -> bool:
        """Waits for a floor that is promised, with the opening at the gate. False: it does not come."""
        if self._promised is not None:
            if self.entry is not None and not self._caller_is_first():
                self._open_at_once(self.entry)
            await self._promised
        return self.entry is not None

    async def _entered(self, on_enter: Callable[[], Awaitable[None]]) -> None:
        entry = self.entry
        if entry is None or entry.consumed:
            await on_enter()
            return
        entry.consumed = True
        if entry.kind is EntryKind.RESUMED:
            return
        if entry.kind is EntryKind.FRESH:
            await on_enter()
            return
        if entry.spoke is None and not self._caller_is_first():
            self._open_at_once(entry)
        await on_enter()
        if entry.spoke is None and not entry.settled and not self._caller_is_first():
            self._open(entry)

    def _caller_is_first(self) -> bool:
        carried = self._session.seat.target.carried if self._session.seat else None
        return carried is not None and carried.comes_first

    def replacement(self) -> SpeechHandle | None:
        """What is said instead of something an agent says by itself as it enters; None where nothing is replaced."""
        entry = self.entry
        if entry is None or not entry.replaces_greetings:
            return None
        if self._caller_is_first():
            return self._session.say_nothing()
        return entry.spoke or self._open(entry)

    def _open_at_once(self, entry: Entry) -> None:
        """Says what needs no model."""
        if entry.opening is not None:
            self._open(entry)

    def _open(self, entry: Entry) -> SpeechHandle:
        if entry.opening is not None:
            entry.spoke = self._session.speak(entry.opening)
        elif entry.kind is EntryKind.RELOCATION:
            entry.spoke = self._session.say_nothing()
        elif entry.resume is not None:
            entry.spoke = self._resume(entry.resume)
        else:
            story = entry.continuation
            entry.spoke = self._session.reply(instructions=story.instructions() if story else None)
        return entry.spoke

    def _resume(self, resume: Resume) -> SpeechHandle:
        """Goes on where a lost agent stopped."""
        apology = self._session.apology_for(resume.silence)
        if resume.action is ResumeAction.ANSWER:
            return self._session.reply(instructions=f"{ANSWER} Begin with: {apology}" if apology else ANSWER)
        words = f"{apology} {resume.rest}".strip()
        return self._session.speak(words) if words else self._session.say_nothing()
