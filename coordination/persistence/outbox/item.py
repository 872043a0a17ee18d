"""What lies in an outbox: one thing to save, with the key that makes saving it twice the same as saving it once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from coordination.errors import InvalidArgument
from coordination.ids import check_name, new_request_id
from coordination.persistence.errors import OutboxFormat

VERSION = 1
"""Of an item. A reader refuses what it does not know, and leaves it where it is for one that does."""
MAX_BYTES = 256 * 1024
"""Of one item. A turn is a few hundred bytes; what is larger belongs in a file, and is refused before it is stored."""


TURN_KEY = "said."
"""Begins the key of a turn of a room's log. Whoever saves such a turn may know a little more or less of how it ended:
the backend keeps what came first, and the same turn again is no fault."""


def turn_key(session: str, key: str) -> str:
    """The key of a turn, the same for everybody who saves it; `key` is the log's own."""
    return TURN_KEY + hashlib.sha256(f"{session}/{key}".encode()).hexdigest()[:40]


class ItemKind(StrEnum):
    """What an item is to the backend."""

    MESSAGE = "message"
    TURN = "turn"
    SESSION = "session"
    EVENT = "event"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem:
    """One thing to save. Items of one `conversation` are delivered in the order in which they were appended."""

    kind: ItemKind
    conversation: str
    payload: Mapping[str, JsonValue]
    id: str = field(default_factory=new_request_id)
    """Also the idempotency key under which the backend saves it."""
    user: str | None = None
    """Whose data it is, so that it can be forgotten."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        check_name(self.conversation, "conversation")
        check_name(self.id, "idempotency key")

    def encode(self) -> str:
        """As JSON text. Raises `InvalidArgument` for an item that is too large to lie in an outbox."""
        fields = _Fields(
            v=VERSION,
            id=self.id,
            kind=self.kind,
            conversation=self.conversation,
            user=self.user,
            at=self.at,
            payload=dict(self.payload),
        )
        text = fields.model_dump_json(exclude_none=False)
        if (size := len(text.encode())) > MAX_BYTES:
            raise InvalidArgument(
                f"A {self.kind} of conversation {self.conversation!r} has {size} bytes, and {MAX_BYTES} is the limit: "
                "keep large content in a file and save a reference to it."
            )
        return text

    @classmethod
    def decode(cls, text: str | bytes) -> OutboxItem:
        """Raises `OutboxFormat` for what this release does not understand."""
        try:
            fields = _Fields.model_validate_json(text)
        except ValidationError as faults:
            raise OutboxFormat(
                f"An item of the outbox cannot be read: {faults.errors()[0]['msg']} ({_version_of(text)}). "
                "Drain it with the release that wrote it, or set it aside."
            ) from faults
        return cls(
            kind=fields.kind,
            conversation=fields.conversation,
            payload=fields.payload,
            id=fields.id,
            user=fields.user,
            at=fields.at,
        )


def user_of(text: str) -> str | None:
    """Whose data an item is, also one of a format that this release does not know."""
    return _field_of(text, "user")


def conversation_of(text: str) -> str | None:
    """Which conversation an item belongs to, also one of a format that this release does not know."""
    return _field_of(text, "conversation")


def _field_of(text: str, name: str) -> str | None:
    found: object = json.loads(text)
    value = cast("dict[str, object]", found).get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


class _Fields(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    v: Annotated[int, Field(ge=VERSION, le=VERSION)]
    id: str
    kind: ItemKind
    conversation: str
    user: str | None = None
    at: datetime
    payload: dict[str, JsonValue]


def _version_of(text: str | bytes) -> str:
    try:
        found: object = json.loads(text)
    except ValueError:
        return "it is no JSON"
    version = found.get("v") if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return f"format {version!r}, and this release knows {VERSION}"
