"""Who the caller is, and whether the call still has one.

Every agent of a call links to the same participant, by identity: the one in the session record, else the one who
joined first. A call ends when its last caller has been gone for longer than a grace time; one agent that leaves never
ends it, and a caller who drops and comes back finds it as it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from livekit import rtc
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

from coordination.livekit.envelope import MetadataError
from coordination.livekit.record import SessionRecord
from coordination.livekit.room_events import on_room

logger = logging.getLogger(__name__)


class Linked(Protocol):
    """What the watch needs of a session."""

    def link_to(self, identity: str) -> None:
        """Hears this participant from now on."""
        ...

    def caller_is_back(self, away: timedelta) -> None:
        """The caller was gone for so long and is in the room again."""
        ...


def is_caller(participant: rtc.RemoteParticipant) -> bool:
    """Whether a participant may be the caller: a person, by phone or browser, not somebody's second track."""
    return participant.kind in DEFAULT_PARTICIPANT_KINDS and ATTRIBUTE_PUBLISH_ON_BEHALF not in participant.attributes


def find_caller(room: rtc.Room, record: SessionRecord | None) -> str | None:
    """The identity to link to: the recorded caller, present or not, else the participant who joined first."""
    if record is not None and record.caller:
        return record.caller
    present = [participant for participant in room.remote_participants.values() if is_caller(participant)]
    # The SDK does not tell when somebody joined; sids don't either. The order is that of the server's answer.
    return present[0].identity if present else None


class CallWatch:
    """Follows the callers of one room for one session."""

    def __init__(self, room: rtc.Room, session: Linked, *, grace: timedelta, ended: Callable[[str], None]) -> None:
        self._room, self._session, self._grace, self._ended = room, session, grace, ended
        self.caller: str | None = None
        self._alone_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ends: list[Callable[[], None]] = []

    @property
    def caller_present(self) -> bool:
        return any(is_caller(participant) for participant in self._room.remote_participants.values())

    @property
    def alone_for(self) -> timedelta:
        """Since the last caller left; zero while there is one, or was none yet."""
        return (
            timedelta(seconds=time.monotonic() - self._alone_since) if self._alone_since is not None else timedelta(0)
        )

    @property
    def over(self) -> bool:
        """Whether nobody calls any more, or the room is gone. The SDK forgets nobody when it is disconnected."""
        return not self.caller_present or not self._room.isconnected()

    def begin(self, *, caller: str | None) -> None:
        self.caller = caller
        self._ends = [
            on_room(self._room, "participant_connected", self._on_joined),
            on_room(self._room, "participant_disconnected", self._on_left),
            on_room(self._room, "room_metadata_changed", self._on_metadata),
        ]

    def close(self) -> None:
        while self._ends:
            self._ends.pop()()
        if self._timer is not None:
            self._timer.cancel()

    def _on_joined(self, participant: rtc.RemoteParticipant) -> None:
        if not is_caller(participant):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        since, self._alone_since = self._alone_since, None
        if self.caller is None or (since is not None and participant.identity != self.caller):
            self._link(participant.identity)
        if since is not None:
            self._session.caller_is_back(timedelta(seconds=time.monotonic() - since))

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        if not is_caller(participant):
            return
        if self.caller_present:
            if participant.identity == self.caller:
                self._link(
                    next(other.identity for other in self._room.remote_participants.values() if is_caller(other))
                )
            return
        self._alone_since = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(
            self._grace.total_seconds(), self._ended, "the last caller has left"
        )

    def _on_metadata(self, _old: str, new: str) -> None:
        try:
            record = SessionRecord.parse(new, room=self._room.name)
        except MetadataError as fault:
            logger.warning("the session record cannot be read: %s", fault)
            return
        if record is not None and record.caller and record.caller != self.caller:
            self._link(record.caller)

    def _link(self, identity: str) -> None:
        self.caller = identity
        self._session.link_to(identity)
