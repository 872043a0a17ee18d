"""Baton: several LiveKit voice agents in one room, acting as one team.

The public names load lazily: importing the package costs nothing, and only what needs LiveKit imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator, Room
    from coordination.errors import CoordinationError, FloorTimeout, LeaseLost, LeaseTimeout, StaleFence
    from coordination.handoff.context import HandoffContext
    from coordination.leases.lease import Lease
    from coordination.livekit import CoordinatedServer, CoordinatedSession, handoff_to
    from coordination.settings import CoordinatorSettings

_HOMES = {
    "Coordinator": "coordination.coordinator",
    "CoordinatorSettings": "coordination.settings",
    "Room": "coordination.coordinator",
    "Lease": "coordination.leases.lease",
    "HandoffContext": "coordination.handoff.context",
    "CoordinatedServer": "coordination.livekit",
    "CoordinatedSession": "coordination.livekit",
    "handoff_to": "coordination.livekit",
    "CoordinationError": "coordination.errors",
    "FloorTimeout": "coordination.errors",
    "LeaseLost": "coordination.errors",
    "LeaseTimeout": "coordination.errors",
    "StaleFence": "coordination.errors",
}

__all__ = [
    "CoordinatedServer",
    "CoordinatedSession",
    "CoordinationError",
    "Coordinator",
    "CoordinatorSettings",
    "FloorTimeout",
    "HandoffContext",
    "Lease",
    "LeaseLost",
    "LeaseTimeout",
    "Room",
    "StaleFence",
    "handoff_to",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coordination' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
