"""Metadata and attributes as models of the user's own.

What stands there was written by others: it is checked when it is read, and what is wrong with it is said with the room
and the reason. An empty text is an empty object, so a model of defaults reads from a room that nobody has prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

from pydantic import BaseModel, JsonValue, ValidationError

from coordination.errors import InvalidArgument
from coordination.livekit.envelope import KEY, MetadataError, open_envelope

MAX_READ = 512 * 1024
"""Bytes. No LiveKit server lets more in; what is longer is not parsed at all."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_metadata(
    model: type[ModelT], text: str, *, room: str, what: str = "metadata", key: str | None = None
) -> ModelT:
    """The JSON object in `text` as `model`; Baton's own key is no part of it.

    With `key` it is the object under that key. Fields that are not there have the model's defaults. Raises
    `MetadataError` for what is no JSON object, is too large, or does not fit the model: all faults with their places.
    """
    if (size := len(text)) > MAX_READ:
        raise MetadataError(what, room, f"it has {size} characters, and {MAX_READ} is the limit", "Write less there.")
    found = dict(open_envelope(text, what=what, room=room).foreign)
    if key is None:
        return _validate(model, found, what=what, room=room, where="")
    if key == KEY:
        raise InvalidArgument(f"The key {KEY!r} is Baton's own: read another.")
    part: JsonValue = found.get(key, {})
    if not isinstance(part, dict):
        kind = type(part).__name__
        raise MetadataError(what, room, f"{key!r} is a JSON {kind}, not an object", "Write an object there.")
    return _validate(model, part, what=what, room=room, where=f"{key}.")


def read_attributes(
    model: type[ModelT], attributes: Mapping[str, str], *, room: str, what: str = "attributes", prefix: str = ""
) -> ModelT:
    """The attributes that `model` has fields for, as that model; all others (LiveKit's own, say) are left alone.

    A field is looked for under `prefix` and its alias or name. Values are texts and become what the field is: "42" a
    number, "true" a truth value. Raises `MetadataError` as `read_metadata` does.
    """
    names = [field.alias or name for name, field in model.model_fields.items()]
    found = {name: attributes[prefix + name] for name in names if prefix + name in attributes}
    try:
        return model.model_validate_strings(found)
    except ValidationError as faults:
        raise MetadataError(what, room, _places(faults, prefix), _REMEDY) from faults


def attributes_of(values: BaseModel, *, prefix: str = "") -> dict[str, str]:
    """The model as attributes: a text for each field. A field that is None becomes the empty text, which removes it.

    Raises `InvalidArgument` for a field that holds more than one value: that belongs into metadata.
    """
    found: dict[str, str] = {}
    for name, value in values.model_dump(mode="json", by_alias=True).items():
        if isinstance(value, dict | list):
            raise InvalidArgument(
                f"The field {name!r} holds more than one value, and an attribute is one text: keep it in metadata."
            )
        found[prefix + name] = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return found


_REMEDY = "Correct what is there, or give the field a default or a wider type."


def _validate(model: type[ModelT], found: Mapping[str, JsonValue], *, what: str, room: str, where: str) -> ModelT:
    try:
        return model.model_validate(found)
    except ValidationError as faults:
        raise MetadataError(what, room, _places(faults, where), _REMEDY) from faults


def _places(faults: ValidationError, prefix: str) -> str:
    """Each fault with its place; never the value, which may be somebody's secret."""
    return "; ".join(
        f"{prefix}{'.'.join(str(part) for part in cast('tuple[object, ...]', fault['loc']))}: {fault['msg']}"
        for fault in faults.errors(include_url=False, include_input=False)
    )
