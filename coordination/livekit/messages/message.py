"""A typed message: a pydantic model with a topic and a version, and what its receiver knows of where it came from."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

from livekit import rtc
from pydantic import BaseModel, ConfigDict, ValidationError

from coordination.errors import CoordinationError, InvalidArgument
from coordination.ids import check_name
from coordination.livekit.identity import is_agent

MAX_PACKET: Final = 15 * 1024
"""Bytes of a reliable packet, as LiveKit allows. What is larger goes as a stream."""
MAX_LOSSY: Final = 1300
"""Bytes of a lossy packet: what fits into one datagram. A larger one is cut up, and lost with any part of it."""
MAX_STREAM: Final = 1024 * 1024
"""Bytes of a message as a stream. What is larger is a file: save it in the backend and send where it is."""


class MessageTooLarge(CoordinationError, ValueError):
    """The message was not sent: it is larger than its way allows."""

    def __init__(self, topic: str, size: int, limit: int, remedy: str) -> None:
        self.topic, self.size, self.limit = topic, size, limit
        super().__init__(f"A message on {topic!r} has {size} bytes, and {limit} is the limit. {remedy}")


class Message(BaseModel):
    """Base of an application's messages: `class Shown(Message, topic="app.shown", version=2): ...`

    The version is counted up with each change that an older reader could not live with. A reader refuses other
    versions than its own, and those that `reads` names besides; new fields with defaults need no new version.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    topic: ClassVar[str] = ""
    version: ClassVar[int] = 1
    reads: ClassVar[frozenset[int]] = frozenset()

    def __init_subclass__(
        cls, *, topic: str = "", version: int = 1, reads: frozenset[int] = frozenset(), **options: Any
    ) -> None:
        super().__init_subclass__(**options)
        cls.topic = check_name(topic or cls.topic, "topic of a message")
        if cls.topic.startswith(("baton.", "lk.")):
            raise InvalidArgument(f"The topic {cls.topic!r} is taken: choose one outside of baton. and lk.")
        cls.version, cls.reads = version, frozenset({version, *reads})

    def encode(self) -> bytes:
        """As it travels: the version, then the fields."""
        fields = self.model_dump(mode="json", by_alias=True)
        return json.dumps({"v": self.version, "m": fields}, ensure_ascii=False, separators=(",", ":")).encode()


class Refusal(StrEnum):
    """Why a message reached no handler."""

    UNREADABLE = "it cannot be read"
    VERSION = "its version is not one this release reads"
    SENDER = "its sender may not send it"


MessageT = TypeVar("MessageT", bound=Message)


def decode(model: type[MessageT], data: bytes) -> MessageT | Refusal:
    """The message, or why it is none."""
    try:
        whole: object = json.loads(data)
    except (ValueError, RecursionError):
        return Refusal.UNREADABLE
    if not isinstance(whole, dict):
        return Refusal.UNREADABLE
    parts = cast("dict[str, object]", whole)
    version = parts.get("v")
    if isinstance(version, bool) or version not in model.reads:
        return Refusal.VERSION
    try:
        return model.model_validate(parts.get("m"))
    except ValidationError:
        return Refusal.UNREADABLE


class Sender(StrEnum):
    """Who may send messages of a type, by what the server vouches for."""

    ANYBODY = "anybody"
    """Callers and servers among them, so nothing that they say may be relied on."""
    AGENTS = "agents"
    """Participants of kind agent."""


Senders = Sender | Collection[str]
"""A kind of sender, or the identities that may send."""


def admits(allowed: Senders, sender: rtc.RemoteParticipant | None) -> bool:
    """Whether a message of `sender` is accepted.

    None is a server, or somebody of whom LiveKit has not told yet: it can be either, so it is nobody in particular.
    """
    if isinstance(allowed, Sender):
        return allowed is Sender.ANYBODY or is_agent(sender)
    return sender is not None and sender.identity in allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Generic[MessageT]):
    """A message that has arrived."""

    message: MessageT
    sender: rtc.RemoteParticipant | None
    """None for a server, or somebody whom LiveKit has not announced yet (it takes up to 3 s)."""

    @property
    def identity(self) -> str | None:
        return self.sender.identity if self.sender is not None else None
