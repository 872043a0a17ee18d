"""Appending to a conversation: one order, whoever writes and whenever it arrives.

Invariant: whoever appends holds the conversation's row until the transaction ends, so sequences have no gap and no
double. The place of a turn is its fence first and its sequence second (models/conversation.py says why).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import insert_missing
from backend.erasure import admit_conversation, admit_user
from backend.errors import Conflict
from backend.models import Conversation, Message, Turn
from backend.models.base import now


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who saves something, and under which fence; no fence means: after everything so far."""

    agent: str | None
    role: str | None
    fence: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One message on its way into the database."""

    speaker: str
    text: str
    at: datetime | None
    agent: str | None
    role: str | None
    played_seconds: float | None
    interrupted: bool


async def own_conversation(
    session: AsyncSession, tenant: str, conversation_id: str, *, user_id: str | None = None, room: str | None = None
) -> Conversation:
    """The conversation, created if need be, and locked. Raises `Erased`, and `Conflict` if another user owns it."""
    await admit_user(session, tenant, user_id)
    await insert_missing(
        session, Conversation, tenant=tenant, id=conversation_id, created_at=now(), messages=0, turns=0, fence=0
    )
    row = await session.get_one(Conversation, (tenant, conversation_id), with_for_update=True)
    # Behind the lock: an erasure that had it has committed its mark by now.
    await admit_conversation(session, tenant, conversation_id)
    if user_id is not None and row.user_id not in (None, user_id):
        raise Conflict(
            f"The conversation {conversation_id!r} belongs to another user: nothing was written. Use an id of its own."
        )
    row.user_id = user_id or row.user_id
    row.room = room or row.room
    return row


async def append_messages(
    session: AsyncSession,
    conversation: Conversation,
    by: Speaker,
    utterances: Sequence[Utterance],
    *,
    turn: int | None = None,
) -> list[Message]:
    """Appends to a conversation that is locked; returns the messages as they are stored."""
    fence = conversation.fence if by.fence is None else by.fence
    moment = now()
    rows = [
        Message(
            tenant=conversation.tenant,
            conversation_id=conversation.id,
            sequence=conversation.messages + number,
            fence=fence,
            turn=turn,
            speaker=said.speaker,
            agent=said.agent or by.agent,
            role=said.role or by.role,
            text=said.text,
            at=said.at or moment,
            played_seconds=said.played_seconds,
            interrupted=said.interrupted,
            saved_at=moment,
        )
        for number, said in enumerate(utterances, start=1)
    ]
    conversation.messages += len(rows)
    conversation.fence = max(conversation.fence, fence)
    session.add_all(rows)
    await session.flush()
    return rows


async def append_turn(
    session: AsyncSession,
    conversation: Conversation,
    by: Speaker,
    utterances: Sequence[Utterance],
    *,
    started_at: datetime | None,
    ended_at: datetime | None,
    interrupted: bool,
) -> tuple[Turn, list[Message]]:
    """Appends a turn with its messages to a conversation that is locked."""
    conversation.turns += 1
    started = started_at or next((said.at for said in utterances if said.at is not None), None) or now()
    turn = Turn(
        tenant=conversation.tenant,
        conversation_id=conversation.id,
        sequence=conversation.turns,
        fence=conversation.fence if by.fence is None else by.fence,
        agent=by.agent,
        role=by.role,
        started_at=started,
        ended_at=ended_at,
        interrupted=interrupted,
    )
    session.add(turn)
    return turn, await append_messages(session, conversation, by, utterances, turn=turn.sequence)
