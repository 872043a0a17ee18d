"""The LiveKit binding: sessions that speak with the floor, workers that serve them, and handing a caller over.

Loaded lazily: importing the package costs nothing, and needs `livekit-baton[livekit]` only when a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordination.livekit.admission import CallAdmission, WhenFull
    from coordination.livekit.entry import Continuation, EntryKind
    from coordination.livekit.handoff import handoff_to
    from coordination.livekit.limits import CallLimits, limits_of
    from coordination.livekit.server import CoordinatedServer
    from coordination.livekit.session import CoordinatedSession

_NAMES = {
    "CallAdmission": "admission",
    "CallLimits": "limits",
    "Continuation": "entry",
    "CoordinatedServer": "server",
    "CoordinatedSession": "session",
    "EntryKind": "entry",
    "WhenFull": "admission",
    "handoff_to": "handoff",
    "limits_of": "limits",
}

__all__ = [
    "CallAdmission",
    "CallLimits",
    "Continuation",
    "CoordinatedServer",
    "CoordinatedSession",
    "EntryKind",
    "WhenFull",
    "handoff_to",
    "limits_of",
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
