"""What changes in a room, told as it happens.

A change is told after the room shows it. LiveKit folds changes of metadata that follow each other quickly into one, so
a change is a reason to look again, never a message of its own; for messages see `coordination.livekit.messages`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from livekit import rtc
from livekit.rtc.room import EventTypes

from coordination.livekit.room_events import on_room

logger = logging.getLogger(__name__)


class ChangeKind(StrEnum):
    """What has changed."""

    JOINED = "joined"
    LEFT = "left"
    ROOM_METADATA = "room metadata"
    METADATA = "metadata"
    """Of a participant."""
    ATTRIBUTES = "attributes"
    NAME = "name"
    TRACKS = "tracks"
    """One was published, taken back, muted or unmuted."""
    QUALITY = "connection quality"
    SPEAKERS = "active speakers"
    CONNECTION = "connection"
    """This process lost the room, or has it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change; the room holds the new state when this is told."""

    kind: ChangeKind
    identity: str | None = None
    """Of the participant that it concerns; None for what concerns the room."""


Handler = Callable[[Change], None]


_OF_A_PARTICIPANT: Final[Mapping[EventTypes, ChangeKind]] = {
    "participant_connected": ChangeKind.JOINED,
    "participant_disconnected": ChangeKind.LEFT,
    "participant_metadata_changed": ChangeKind.METADATA,
    "participant_name_changed": ChangeKind.NAME,
    "participant_attributes_changed": ChangeKind.ATTRIBUTES,
    "track_published": ChangeKind.TRACKS,
    "track_unpublished": ChangeKind.TRACKS,
    "track_muted": ChangeKind.TRACKS,
    "track_unmuted": ChangeKind.TRACKS,
    "connection_quality_changed": ChangeKind.QUALITY,
}
_OF_THE_LOCAL_ONE: Final[Mapping[EventTypes, ChangeKind]] = {
    "local_track_published": ChangeKind.TRACKS,
    "local_track_unpublished": ChangeKind.TRACKS,
}
_OF_THE_ROOM: Final[Mapping[EventTypes, ChangeKind]] = {
    "room_metadata_changed": ChangeKind.ROOM_METADATA,
    "connection_state_changed": ChangeKind.CONNECTION,
}


class Changes:
    """Tells each change of one room to its handlers. A handler that fails does not stop the others."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._handlers: list[Handler] = []
        self._ends = [
            *(on_room(room, event, self._about_somebody(kind)) for event, kind in _OF_A_PARTICIPANT.items()),
            *(on_room(room, event, self._about_us(kind)) for event, kind in _OF_THE_LOCAL_ONE.items()),
            *(on_room(room, event, self._about_the_room(kind)) for event, kind in _OF_THE_ROOM.items()),
        ]

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Calls `handler` for each change, in the room's event loop: it returns at once. The result ends that."""
        self._handlers.append(handler)

        def end() -> None:
            if handler in self._handlers:
                self._handlers.remove(handler)

        return end

    def tell(self, change: Change) -> None:
        for handler in list(self._handlers):
            try:
                handler(change)
            except Exception:
                logger.exception("a handler failed", extra={"change": str(change.kind)})

    def close(self) -> None:
        """Tells nothing any more. Closing twice does no harm."""
        self._handlers.clear()
        for end in self._ends:
            end()

    def _about_somebody(self, kind: ChangeKind) -> Callable[..., None]:
        def changed(*arguments: object) -> None:
            # The SDK gives the participant first for some events, and last for others.
            who = next(each for each in arguments if isinstance(each, rtc.Participant))
            self.tell(Change(kind=kind, identity=who.identity))

        return changed

    def _about_us(self, kind: ChangeKind) -> Callable[..., None]:
        return lambda *_: self.tell(Change(kind=kind, identity=self._room.local_participant.identity))

    def _about_the_room(self, kind: ChangeKind) -> Callable[..., None]:
        return lambda *_: self.tell(Change(kind=kind))
