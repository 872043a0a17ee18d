"""Session state that LiveKit keeps: who is in the room, and what its metadata and attributes say, as types of your own.

    state = RoomState(ctx.room)
    state.remote["caller"].read(Preferences)           # a pydantic model of yours, with its defaults
    await RoomMetadata(ctx.api, ctx.room.name).update({"topic": "invoice"})

Nothing is copied: what is read is what the room holds at that moment. Which state belongs where, and how large it may
be, is in docs/how-to/where-state-goes.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordination.livekit.envelope import MetadataError
    from coordination.livekit.state.changes import Change, ChangeKind
    from coordination.livekit.state.participants import ParticipantMetadata
    from coordination.livekit.state.room import ParticipantState, RoomState
    from coordination.livekit.state.typed import attributes_of, read_attributes, read_metadata
    from coordination.livekit.state.updates import RoomMetadata

_HOMES = {
    "Change": "coordination.livekit.state.changes",
    "ChangeKind": "coordination.livekit.state.changes",
    "MetadataError": "coordination.livekit.envelope",
    "ParticipantMetadata": "coordination.livekit.state.participants",
    "ParticipantState": "coordination.livekit.state.room",
    "RoomMetadata": "coordination.livekit.state.updates",
    "RoomState": "coordination.livekit.state.room",
    "attributes_of": "coordination.livekit.state.typed",
    "read_attributes": "coordination.livekit.state.typed",
    "read_metadata": "coordination.livekit.state.typed",
}

__all__ = [
    "Change",
    "ChangeKind",
    "MetadataError",
    "ParticipantMetadata",
    "ParticipantState",
    "RoomMetadata",
    "RoomState",
    "attributes_of",
    "read_attributes",
    "read_metadata",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
