"""The values that requests are made of, with their bounds. What a database or a reader of JSON would stumble over is
refused here, at the edge: NUL characters, half surrogate pairs, NaN, numbers beyond 64 bits, objects without end.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

MAX_JSON: Final = 60 * 1024
"""Bytes of one JSON object; what is meant for LiveKit's metadata still fits into its 64 KiB."""
MAX_DEPTH: Final = 16
MAX_NUMBER: Final = 2**53 - 1
"""The largest integer that every reader of JSON keeps exactly."""
MAX_TEXT: Final = 16 * 1024
NO_NUL: Final = r"^[^\x00]*$"
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ID: Final = r"^[A-Za-z0-9_+][A-Za-z0-9_.:@+~=-]*$"


class Body(BaseModel):
    """Base of what requests carry: unknown fields are faults, not silently dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """Base of what is answered; readable from a row."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


def _utc(value: datetime) -> datetime:
    if not 1970 <= value.year <= 9000:
        raise ValueError("the year is outside of 1970 to 9000")
    return value.astimezone(UTC)


def _written(value: Any) -> Any:
    """A number is no date, though it could be read as seconds since 1970."""
    if isinstance(value, date) or (isinstance(value, str) and _DATE.match(value)):
        return value
    raise ValueError("it is not written as RFC 3339 says")


def _json_object(value: dict[str, Any]) -> dict[str, Any]:
    _check(value, MAX_DEPTH)
    if len(json.dumps(value, ensure_ascii=False).encode()) > MAX_JSON:
        raise ValueError(f"the object is larger than {MAX_JSON} bytes")
    return value


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"the object is nested deeper than {MAX_DEPTH} levels")
    match value:
        case str():
            _check_text(value)
        case bool() | None:
            pass
        case int():
            if abs(value) > MAX_NUMBER:
                raise ValueError("a number is beyond 2^53 - 1")
        case float():
            if not math.isfinite(value):
                raise ValueError("NaN and Infinity are no JSON")
        case dict():
            for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
                _check_text(str(name))  # pyright: ignore[reportUnknownArgumentType]
                _check(inner, depth - 1)
        case list():
            for inner in value:  # pyright: ignore[reportUnknownVariableType]
                _check(inner, depth - 1)
        case _:
            raise ValueError("it is no JSON")


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise ValueError("a text holds the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a surrogate pair") from error


Id = Annotated[str, Field(min_length=1, max_length=256, pattern=_ID)]
"""An id of the application's: letters, digits, and _.:@+~=- behind the first character."""
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=NO_NUL)]
"""A name as LiveKit or a person gives it."""
Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_.:-]*$")]
"""A kind: lower-case letters, digits, and _.:- behind the first character."""
Line = Annotated[str, Field(max_length=256, pattern=NO_NUL)]
Text = Annotated[str, Field(max_length=MAX_TEXT, pattern=NO_NUL)]
# Strict: in JSON true is no number, 1 is no flag and "1" is neither, whatever Python makes of them.
Fence = Annotated[int, Field(strict=True, ge=0, le=MAX_NUMBER)]
Number = Annotated[int, Field(strict=True, ge=0, le=MAX_NUMBER)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Moment = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_utc)]
"""A point in time with its zone, answered in UTC."""
Day = Annotated[date, BeforeValidator(_written)]
"""A day, e.g. `2026-11-24`."""
Object = Annotated[dict[str, Any], AfterValidator(_json_object)]
"""A JSON object of at most 60 KiB and 16 levels."""


def merge_patch(target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396): None removes, an object is merged, all else replaces."""
    merged: dict[str, Any] = dict(target) if isinstance(target, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]
    return merged
