"""Handlers on a LiveKit room, with the end of each in the hand of whoever set it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from livekit import rtc
from livekit.rtc.room import EventTypes


def on_room(room: rtc.Room, event: EventTypes, handler: Callable[..., None]) -> Callable[[], None]:
    """Calls `handler` for each `event` of the room; the returned function ends that, once or more often.

    The handler runs in the room's own event loop task: it returns at once and raises nothing.
    """
    emitter: Any = room  # The SDK leaves the callbacks of its emitter untyped; this is the one place that minds.
    emitter.on(event, handler)
    ending = [handler]

    def end() -> None:
        while ending:
            emitter.off(event, ending.pop())

    return end
