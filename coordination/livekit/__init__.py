"""The LiveKit binding: sessions that speak with the floor, workers that serve them, and handing a caller over.

Loaded lazily: importing the package costs nothing, and needs `livekit-baton[livekit]` only when a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordination.livekit.entry import Continuation, EntryKind
    from coordination.livekit.handoff import handoff_to
    from coordination.livekit.server import CoordinatedServer
    from coordination.livekit.session import CoordinatedSession

_NAMES = {
    "Continuation": "entry",
    "CoordinatedServer": "server",
    "CoordinatedSession": "session",
    "EntryKind": "entry",
    "handoff_to": "handoff",
}

__all__ = [
    "Continuation",
    "CoordinatedServer",
    "CoordinatedSession",
    "EntryKind",
    "handoff_to",
]


def __getattr__(name: str) -> object:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_NAMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "livekit":
            raise
        raise ImportError(f"{name} needs LiveKit Agents: pip install 'livekit-baton[livekit]'.") from error
    return getattr(module, name)
