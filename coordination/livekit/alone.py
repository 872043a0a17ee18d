"""Saves a call that one agent serves without coordination: because it is off, or Redis was away when the call began.

There is no turn log to save from, so it is the session's own history; and no Redis, so the outbox is the file. What the
job leaves there when it is killed, a worker of the host delivers (`coordination.livekit.leftovers`).
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from livekit import rtc
from livekit.agents import ConversationItemAddedEvent, JobContext, llm

from coordination.errors import CoordinationError
from coordination.ids import DEFAULT_TENANT, Tenant
from coordination.livekit.envelope import MetadataError
from coordination.livekit.job_call import DEFAULT_ROLE
from coordination.livekit.linking import is_caller
from coordination.livekit.record import SessionRecord
from coordination.livekit.room_events import on_room
from coordination.livekit.utterance import on_session
from coordination.persistence.client import BackendClient
from coordination.persistence.recorder import Recorder
from coordination.persistence.settings import PersistenceSettings
from coordination.persistence.values import ConversationTurn, SessionSummary, Speaker, Utterance

if TYPE_CHECKING:
    from coordination.livekit.session import CoordinatedSession

logger = logging.getLogger(__name__)

SPEAKERS = {"user": Speaker.CALLER, "assistant": Speaker.AGENT}


class SavingAlone:
    """Begins before the session starts, so that nothing is missed; without a backend it does nothing.

    Ends with the job: then the record of the call is saved, and what is due is delivered for as long as
    `BATON_OUTBOX_DRAIN` says.
    """

    def __init__(self, ctx: JobContext, session: CoordinatedSession[Any], *, tenant: str | None) -> None:
        self._ctx, self._tenant = ctx, Tenant(tenant or DEFAULT_TENANT)
        self._role = ctx.job.agent_name or DEFAULT_ROLE
        self._early: list[llm.ChatMessage] = []
        self._callers: set[str] = set()
        self._started, self._ended = datetime.now(UTC), None
        self._parts = AsyncExitStack()
        self._backend: BackendClient | None = None
        self._recorder: Recorder | None = None
        self._record, self._sid = SessionRecord(), ""
        on_session(session, "conversation_item_added", self._on_item)
        on_session(session, "close", self._on_end)
        on_room(ctx.room, "participant_connected", self._on_participant)
        on_room(ctx.room, "disconnected", self._on_end)

    async def open(self) -> None:
        """To be called in the room. A backend or an outbox that cannot be used is reported, and the call goes on."""
        try:
            settings = PersistenceSettings()
            if not settings.backend_url:
                return
            self._backend = await self._parts.enter_async_context(BackendClient.open(settings, tenant=self._tenant))
        except CoordinationError as fault:
            logger.error("nothing of this call is saved: %s", fault)
            return
        room = self._ctx.room
        self._sid = await room.sid
        try:
            self._record = SessionRecord.parse(room.metadata, room=room.name) or self._record
        except MetadataError as fault:
            logger.warning("whose call it is cannot be told: %s", fault)
        for participant in room.remote_participants.values():
            self._on_participant(participant)
        self._recorder = Recorder(self._backend, self._conversation, user=self._record.user, room=room.name)
        while self._early:
            self._save(self._recorder, self._early.pop(0))
        self._ctx.add_shutdown_callback(self.close)

    async def close(self, reason: str = "") -> None:
        """Returns when turns and record are durable. Never raises on purpose."""
        recorder, self._recorder = self._recorder, None
        if recorder is None or self._backend is None:
            return
        try:
            await recorder.close()
            await self._backend.save_session(self._summary(recorder.recorded, reason))
        except CoordinationError as fault:
            logger.error("the record of a call is not saved: %s", fault)
        finally:
            await self._parts.aclose()

    @property
    def _conversation(self) -> str:
        return self._record.conversation or self._sid

    def _summary(self, messages: int, reason: str) -> SessionSummary:
        ended = self._ended or datetime.now(UTC)
        return SessionSummary(
            id=self._sid,
            started_at=self._started,
            ended_at=ended,
            duration_seconds=(ended - self._started).total_seconds(),
            conversation_id=self._conversation,
            user_id=self._record.user,
            room=self._ctx.room.name,
            room_sid=self._sid,
            participants=len(self._callers) or None,
            messages=messages,
            roles=(self._role,),
            reason=reason[:256] or None,
        )

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        item = event.item
        if not isinstance(item, llm.ChatMessage) or item.role not in SPEAKERS or not (item.text_content or "").strip():
            return
        if self._recorder is None:
            self._early.append(item)
        else:
            self._save(self._recorder, item)

    def _save(self, recorder: Recorder, item: llm.ChatMessage) -> None:
        agent, at = self._ctx.job.id, datetime.fromtimestamp(item.created_at, UTC)
        said = Utterance(
            speaker=SPEAKERS[item.role],
            text=item.text_content or "",
            at=at,
            agent=agent,
            role=self._role,
            interrupted=item.interrupted,
        )
        turn = ConversationTurn(
            messages=(said,), agent=agent, role=self._role, started_at=at, interrupted=item.interrupted
        )
        # The item's id is unique in its session, and the job's among all.
        recorder.record(turn, key=f"{agent}.{item.id}")

    def _on_participant(self, participant: rtc.RemoteParticipant) -> None:
        if is_caller(participant):
            self._callers.add(participant.identity)

    def _on_end(self, _: object = None) -> None:
        self._ended = self._ended or datetime.now(UTC)
