"""Metadata that several parties share: one JSON object, in which the key `baton` is ours and all else is not.

Invariant: what others put there survives us. Foreign keys are kept, never read, and written back as they were.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar, cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from coordination.errors import CoordinationError

logger = logging.getLogger(__name__)

KEY = "baton"
VERSION = 1
"""Of what stands under our key. A reader refuses what it does not know."""


class MetadataError(CoordinationError, ValueError):
    """Metadata of a room, dispatch or message cannot be read, or cannot be written as asked."""

    def __init__(self, what: str, room: str, reason: str, remedy: str) -> None:
        self.what, self.room, self.reason = what, room, reason
        super().__init__(f"The {what} of room {room!r} cannot be used: {reason}. {remedy}")


class Ours(BaseModel):
    """Base of what stands under our key: strict about types, indifferent to keys that a later release may add."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    v: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Metadata, taken apart. `ours` is None where nothing stands under our key."""

    ours: JsonValue = None
    foreign: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])

    def text(self) -> str:
        """The JSON to write: foreign keys as they were, then ours."""
        whole = dict(self.foreign)
        if self.ours is not None:
            whole[KEY] = self.ours
        if not whole:
            return ""
        text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        # Half a surrogate pair is legal JSON as an escape, and in no other way.
        return text if _encodable(text) else json.dumps(whole, separators=(",", ":"))


def open_envelope(text: str, *, what: str, room: str) -> Envelope:
    """Takes metadata apart. Empty text is an empty envelope; anything but a JSON object raises `MetadataError`."""
    if not text.strip():
        return Envelope()
    remedy = f'Write a JSON object there, with whatever is yours beside the key "{KEY}".'
    try:
        # NaN and Infinity are no JSON: another reader of the same metadata would stumble over them.
        whole: object = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as fault:
        raise MetadataError(what, room, f"it is not JSON ({fault})", remedy) from fault
    if not isinstance(whole, dict):
        raise MetadataError(what, room, f"it is a JSON {type(whole).__name__}, not an object", remedy)
    items = cast("dict[str, JsonValue]", whole)
    return Envelope(ours=items.get(KEY), foreign={key: value for key, value in items.items() if key != KEY})


def look_into(text: str, *, what: str, room: str) -> Envelope:
    """As `open_envelope`, and an empty envelope for anything but a JSON object: an application may keep there what it
    likes. For readers; whoever writes there must not write over it.

    Nothing of ours can be in what is no object, so a call is served as if nothing stood there; that is logged, once.
    """
    try:
        return open_envelope(text, what=what, room=room)
    except MetadataError as fault:
        _say_once(str(fault))
        return Envelope()


@lru_cache(maxsize=256)
def _say_once(fault: str) -> None:
    """A job reads the same metadata several times."""
    logger.warning("%s Until then Baton reads nothing from there, and writes nothing.", fault)


OursT = TypeVar("OursT", bound=Ours)


def read_ours(model: type[OursT], envelope: Envelope, *, what: str, room: str) -> OursT | None:
    """What stands under our key as `model`; None if there is nothing.

    Raises `MetadataError` for a version this release does not know, and for fields of another type.
    """
    if envelope.ours is None:
        return None
    if not isinstance(envelope.ours, dict):
        raise MetadataError(what, room, f'the value of "{KEY}" is no object', "That key is Baton's; use another.")
    version = envelope.ours.get("v")
    if version != VERSION or isinstance(version, bool):
        raise MetadataError(
            what,
            room,
            f"it is of format {version!r}, and this release knows {VERSION}",
            "Run releases of Baton side by side that are at most one apart.",
        )
    try:
        return model.model_validate(envelope.ours)
    except ValidationError as faults:
        places = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults.errors())
        raise MetadataError(what, room, places, "Correct the fields under our key.") from faults


def write_ours(model: Ours, foreign: Mapping[str, JsonValue]) -> str:
    """The JSON text for `model` among `foreign` keys; absent fields are left out."""
    ours = cast("JsonValue", model.model_dump(mode="json", exclude_none=True))
    return Envelope(ours=ours, foreign=foreign).text()


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    """A number beyond what a double holds would come back as Infinity, which is not JSON."""
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is larger than any number that can be kept")
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
