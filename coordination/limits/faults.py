"""All faults of a configuration at once: what a schema finds, and what is left to look at beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError

from coordination.errors import InvalidSettings

S = TypeVar("S", bound=BaseModel)

_ROUNDS: Final = 100
"""Of leaving faulty parts out; each one makes the rest smaller, and deeper than that no configuration is."""


def checked(schema: type[S], content: object, where: str, faults: list[str]) -> tuple[S, frozenset[str]]:
    """The content by its schema, without the parts that have faults, which are added to `faults`; and the names of
    those parts: what is said of them elsewhere cannot be judged.
    """
    try:
        return schema.model_validate(content), frozenset()
    except ValidationError as error:
        faults.extend(fault_text(where, dict(fault)) for fault in error.errors(include_url=False))
        sound, left = _sound_part(schema, content, error)
        return sound, frozenset(_names(content)) - frozenset(_names(left))


def _sound_part(schema: type[S], content: object, error: ValidationError) -> tuple[S, object]:
    left = copy.deepcopy(cast("dict[str, Any]", content)) if isinstance(content, dict) else {}
    for _ in range(_ROUNDS):
        for fault in error.errors():
            _remove(left, fault["loc"])
        try:
            return schema.model_validate(left), left
        except ValidationError as again:
            error = again
    return schema(), {}


def _remove(content: Any, place: Sequence[int | str]) -> None:
    """Removes what is at the place; if nothing is there, the innermost part around it."""
    holder: dict[Any, Any] = {}
    key: int | str = ""
    inner = content
    for part in place:
        if not isinstance(inner, dict) or part not in inner:
            break
        holder, key = cast("dict[Any, Any]", inner), part
        inner = holder[key]
    holder.pop(key, None)


def _names(content: object, path: str = "") -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in cast("dict[object, object]", content).items():
            yield f"{path}{key}"
            yield from _names(value, f"{path}{key}.")


def fault_text(where: str, fault: Mapping[str, Any]) -> str:
    """One fault of a configuration, with its place and what is there."""
    place = ".".join(str(part) for part in fault["loc"] if part != "[key]")
    value = fault.get("input")
    shown = "" if fault["type"] == "missing" or isinstance(value, dict | BaseModel) else f" (it is {value!r:.60})"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{where}: {place}: {message}{shown}" if place else f"{where}: {message}{shown}"


def faulty(faults: Sequence[str]) -> InvalidSettings:
    """The error that lists all faults."""
    many = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
    listed = "\n".join(f"  - {fault}" for fault in faults)
    return InvalidSettings(f"The configuration of limits has {many}:\n{listed}", faults)
