"""Messages in the room: announcements of the floor, which Baton sends, and typed messages of the application's own.

    class Shown(Message, topic="app.shown", version=1):
        page: int

    messages = Messages(ctx.room)
    messages.handle(Shown, on_shown)
    await messages.send(Shown(page=3), to=["caller"])

A message reaches those who are in the room now. What somebody who joins later must know goes into metadata or context.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from coordination.livekit.messages.floor import (
    FLOOR_TOPIC,
    MAX_BYTES,
    MAX_FENCE,
    PLAUSIBLE,
    FloorAnnouncement,
    FloorWitness,
    Refusal,
    announce,
)

if TYPE_CHECKING:
    from coordination.livekit.messages.message import Message, MessageTooLarge, Received, Sender
    from coordination.livekit.messages.messenger import Messages, MessageStatistics

_HOMES = {
    "Message": "message",
    "MessageStatistics": "messenger",
    "MessageTooLarge": "message",
    "Messages": "messenger",
    "Received": "message",
    "Sender": "message",
}

__all__ = [
    "FLOOR_TOPIC",
    "MAX_BYTES",
    "MAX_FENCE",
    "PLAUSIBLE",
    "FloorAnnouncement",
    "FloorWitness",
    "Message",
    "MessageStatistics",
    "MessageTooLarge",
    "Messages",
    "Received",
    "Refusal",
    "Sender",
    "announce",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
