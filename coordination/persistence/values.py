"""What goes to the backend and comes from it, typed. Fields that a later backend adds are ignored, not refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from coordination.ids import RoomName
from coordination.room.texts import MAX_TEXT


class _Value(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Speaker(StrEnum):
    """Who said something."""

    CALLER = "caller"
    AGENT = "agent"
    PERSON = "person"
    """A colleague who took the call."""
    SYSTEM = "system"
    """Nobody: a notice."""


def _now() -> datetime:
    return datetime.now(UTC)


class Utterance(_Value):
    """What was said, by whom."""

    speaker: Speaker
    text: Annotated[str, Field(max_length=MAX_TEXT)]
    at: datetime = Field(default_factory=_now)
    agent: str | None = None
    """The agent that said it, or that heard the caller say it."""
    role: str | None = None
    played_seconds: float | None = None
    """How much of it was heard, if it is known."""
    interrupted: bool = False


class ConversationTurn(_Value):
    """What one agent saves at once: as a rule what the caller said, and what was answered."""

    messages: Annotated[tuple[Utterance, ...], Field(min_length=1, max_length=50)]
    agent: str | None = None
    """Id of the agent that held the floor."""
    role: str | None = None
    fence: int | None = None
    """The fence that it held the floor with: its place among the turns of other agents."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    interrupted: bool = False


class SavedCall(_Value):
    """A call, as whoever saves it knows it."""

    session: RoomName
    """What it is known by: in LiveKit the sid that its room began with. Its record is saved under it."""
    room: str
    """The room's name."""
    conversation: str
    user: str | None = None


class SessionSummary(_Value):
    """The record of a call, saved while it runs and once more at its end."""

    id: str
    """The room's sid is a good one: saved again, it is replaced."""
    started_at: datetime
    ended_at: datetime | None = None
    duration_seconds: float | None = None
    conversation_id: str | None = None
    user_id: str | None = None
    room: str | None = None
    room_sid: str | None = None
    participants: int | None = None
    """How many there were, agents not counted."""
    messages: int | None = None
    handoffs: int = 0
    roles: tuple[str, ...] = ()
    """The roles that had the floor, in the order in which they first had it."""
    reason: str | None = None
    details: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    fence: int = 0
    """Of the holder that saves it: an older one cannot overwrite a newer one's record."""


class CallEvent(_Value):
    """Something that happened to a call, for services that follow the backend's feed; never what was said."""

    id: str
    """The same id again is the same event."""
    kind: str
    at: datetime
    room: str
    conversation_id: str
    agent: str | None = None
    role: str | None = None
    fence: int | None = None
    reason: str | None = None


class Message(Utterance):
    """An utterance as the backend has it."""

    conversation_id: str
    sequence: int
    fence: int


class User(_Value):
    """A user, and what they prefer."""

    id: str
    name: str | None = None
    language: str | None = None
    preferences: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class InvoiceItem(_Value):
    """One line; the amount in cents, negative for a credit."""

    text: str
    cents: int


class Invoice(_Value):
    """What a user is asked to pay."""

    id: str
    issued_on: str
    due_on: str
    currency: str = "EUR"
    items: tuple[InvoiceItem, ...]
    status: str = "open"

    @property
    def cents(self) -> int:
        return sum(item.cents for item in self.items)


class Ticket(_Value):
    """Something that is being taken care of."""

    number: int
    kind: str = ""
    subject: str = ""
    status: str = "open"
    details: Mapping[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class Conversation(_Value):
    """A conversation of before."""

    id: str
    room: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    messages: int = 0


class UserContext(_Value):
    """What an agent wants to know about a user before it speaks."""

    user: User
    conversations: int = 0
    """How many there were."""
    last_conversation: Conversation | None = None
    last_messages: tuple[Message, ...] = ()
    """The last ten of that conversation, the newest last."""
    open_tickets: tuple[Ticket, ...] = ()
    invoices: tuple[Invoice, ...] = ()
    """The newest first."""


class Erasure(_Value):
    """What the backend has erased: a user with all of theirs, or one conversation."""

    user: str | None = Field(default=None, validation_alias="user_id")
    conversations: frozenset[str] = frozenset()
    rooms: frozenset[str] = frozenset()
    """Names of the rooms in which they were held."""


class RecentMessages(_Value):
    """The newest messages of a conversation, the newest last."""

    conversation_id: str | None = None
    """None for a room that has had no conversation yet."""
    messages: tuple[Message, ...] = ()
