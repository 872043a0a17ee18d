"""State that is in the wrong place: room metadata that are too large, cannot be read, or copy what is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, cast

from coordination.dev.checks.finding import Finding, warning

PORTABLE: Final = 64 * 1024
"""Bytes that every LiveKit server takes; Baton writes no more."""
COMFORTABLE: Final = 16 * 1024
"""Bytes from which each change of metadata is noticeable: all of it goes to everybody in the room."""
_GUIDE: Final = "docs/how-to/where-state-goes.md says where it belongs."
_ROOMS: Final = frozenset({"participants", "participant_count", "num_participants", "tracks", "speakers"})
"""Keys that copy what the room itself knows."""
_BACKENDS: Final = frozenset({"messages", "history", "transcript", "conversation_history", "chat_history"})
"""Keys that copy what the backend has."""


def check_metadata(room: str, text: str, *, backend: bool) -> Iterator[Finding]:
    """Warnings about one room's metadata; `backend` says whether there is one that keeps the conversation."""
    size = len(text.encode())
    if size > COMFORTABLE:
        limit = f"more than {PORTABLE} are not portable" if size > PORTABLE else "each change sends all of it to all"
        largest = ", ".join(_largest(text)) or "the text"
        yield warning(
            "room metadata", f"{room} has {size} bytes of it ({limit})", f"Keep less under {largest}. {_GUIDE}"
        )
    found = _object(text)
    if found is None:
        yield warning(
            "room metadata",
            f"{room} has some that are no JSON object: nobody can add to them",
            "Write an object there.",
        )
        return
    if copies := sorted(_ROOMS & found.keys()):
        yield warning(
            "room metadata",
            f"{room} keeps {', '.join(copies)} there, which the room knows itself",
            f"Read ctx.room instead of a copy (RoomState). {_GUIDE}",
        )
    if backend and (copies := sorted(_BACKENDS & found.keys())):
        yield warning(
            "room metadata",
            f"{room} keeps {', '.join(copies)} there, and a backend is configured that keeps the conversation",
            f"Keep it in one place. {_GUIDE}",
        )


def _object(text: str) -> Mapping[str, object] | None:
    if not text.strip():
        return {}
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", found) if isinstance(found, dict) else None


def _largest(text: str) -> list[str]:
    found = _object(text) or {}
    return sorted(found, key=lambda key: len(str(found[key])), reverse=True)[:3]
