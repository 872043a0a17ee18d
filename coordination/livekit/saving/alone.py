"""Saves a call that one agent serves without coordination: because it is off, or Redis was away when the call began.

There is no turn log to save from, so it is the session's own history; and no Redis, so the outbox is the file. What the
job leaves there when it is killed, a worker of the host delivers (`coordination.persistence.host`).
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Self

from livekit import rtc
from livekit.agents import AgentSession, ConversationItemAddedEvent, JobContext, llm

from coordination.errors import CoordinationError
from coordination.ids import RoleName
from coordination.livekit.job_call import CallOf
from coordination.livekit.linking import is_caller
from coordination.livekit.record import SessionRecord
from coordination.livekit.room_events import on_room
from coordination.livekit.utterance import on_session
from coordination.persistence.client import BackendClient
from coordination.persistence.recorder import Recorder
from coordination.persistence.settings import PersistenceSettings
from coordination.persistence.summary import ENDED, STARTED, event_of, record_of
from coordination.persistence.values import CallEvent, ConversationTurn, SavedCall, Speaker, Utterance
from coordination.room.texts import sayable

logger = logging.getLogger(__name__)

_SPEAKERS = {"user": Speaker.CALLER, "assistant": Speaker.AGENT}


class SavingAlone:
    """Does nothing without a backend. Made before the session starts, so that nothing is missed.

    Ends with the job, or with `close`: then the record of the call is saved, and what is due is delivered for as long
    as `BATON_OUTBOX_DRAIN` says.
    """

    def __init__(self, ctx: JobContext, *, tenant: str | None) -> None:
        """`tenant` is the one of all of a worker's calls, if it has one; else the call's own metadata name it."""
        self._ctx, self._tenant = ctx, tenant
        self.backend: BackendClient | None = None
        """What the call is saved to, once it is open; None where nothing is saved."""
        self.call: SavedCall | None = None
        self._role = RoleName("")
        self._recorder: Recorder | None = None
        self._early: list[llm.ChatMessage] = []
        self._callers: set[str] = set()
        self._started, self._ended = datetime.now(UTC), None
        self._parts = AsyncExitStack()
        on_room(ctx.room, "participant_connected", self._on_participant)
        on_room(ctx.room, "disconnected", self._on_end)

    def follow(self, session: AgentSession[Any]) -> Self:
        """From here on whatever is said is saved, also what is said before `open`."""
        on_session(session, "conversation_item_added", self._on_item)
        on_session(session, "close", self._on_end)
        return self

    async def open(self) -> None:
        """To be called in the room. A backend or an outbox that cannot be used is reported, and the call goes on."""
        try:
            settings = PersistenceSettings()
            if not settings.backend_url:
                return
            of = CallOf.read(self._ctx.job, tenant=self._tenant)
            call = self._whose(of)
            client = BackendClient.open(settings, tenant=of.tenant)
            self.backend, self.call, self._role = await self._parts.enter_async_context(client), call, of.role
        except CoordinationError as fault:
            logger.error("nothing of this call is saved: %s", fault)
            return
        for participant in self._ctx.room.remote_participants.values():
            self._on_participant(participant)
        self._recorder = Recorder(self.backend, call.conversation, user=call.user, room=call.room)
        while self._early:
            self._save(self._recorder, self._early.pop(0))
        self._ctx.add_shutdown_callback(self.close)
        await self._tell(event_of(call, STARTED, self._started, agent=self._ctx.job.id, role=self._role))

    async def close(self, reason: str = "") -> None:
        """Returns when turns and record are durable. Never raises on purpose. Closing twice does no harm."""
        recorder, self._recorder = self._recorder, None
        if recorder is None or self.backend is None or self.call is None:
            return
        record = record_of(
            self.call,
            started=self._started,
            ended=self._ended or datetime.now(UTC),
            participants=len(self._callers),
            messages=recorder.recorded,
            roles=(self._role,),
            reason=reason,
        )
        try:
            await recorder.close()
            await self.backend.save_session(record)
            await self._tell(event_of(self.call, ENDED, record.ended_at or record.started_at, reason=reason))
        except CoordinationError as fault:
            logger.error("the record of a call is not saved: %s", fault)
        finally:
            await self._parts.aclose()

    async def _tell(self, event: CallEvent) -> None:
        """Services that follow the backend's feed."""
        if self.backend is None or self.call is None:
            return
        try:
            await self.backend.save_event(event, user_id=self.call.user)
        except CoordinationError as fault:
            logger.warning("other services are not told of %s: %s", event.kind, fault)

    def _whose(self, of: CallOf) -> SavedCall:
        """What the room's metadata say now: a server may have added to them since the job was dispatched."""
        room = self._ctx.room
        record = SessionRecord.parse(room.metadata, room=room.name) or SessionRecord()
        return SavedCall(session=of.name, room=room.name, conversation=record.conversation or of.name, user=record.user)

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        if (item := said(event)) is None:
            return
        if self._recorder is None:
            self._early.append(item)
        else:
            self._save(self._recorder, item)

    def _save(self, recorder: Recorder, item: llm.ChatMessage) -> None:
        agent, at = self._ctx.job.id, datetime.fromtimestamp(item.created_at, UTC)
        words = Utterance(
            speaker=speaker_of(item),
            text=sayable(item.text_content or ""),
            at=at,
            agent=agent,
            role=self._role,
            interrupted=item.interrupted,
        )
        turn = ConversationTurn(
            messages=(words,), agent=agent, role=self._role, started_at=at, interrupted=item.interrupted
        )
        # The item's id is unique in its session, and the job's among all.
        recorder.record(turn, key=f"{agent}.{item.id}")

    def _on_participant(self, participant: rtc.RemoteParticipant) -> None:
        if is_caller(participant):
            self._callers.add(participant.identity)

    def _on_end(self, _: object = None) -> None:
        self._ended = self._ended or datetime.now(UTC)


def said(event: ConversationItemAddedEvent) -> llm.ChatMessage | None:
    """What caller or agent said; None for an item of the history that nobody said."""
    item = event.item
    if not isinstance(item, llm.ChatMessage) or item.role not in _SPEAKERS or not (item.text_content or "").strip():
        return None
    return item


def speaker_of(item: llm.ChatMessage) -> Speaker:
    """Who said it, of what `said` lets through."""
    return _SPEAKERS[item.role]
