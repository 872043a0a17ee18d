"""The session record: what a call is, in a few ids, kept in its room's metadata.

Everybody in the room can read it, so it holds ids alone; a worker that takes a call over can read it without Redis. It
outlives Redis, but not a restart of livekit-server: the holder of the floor writes it again then.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from livekit import api
from pydantic import JsonValue

from coordination.errors import StaleFence
from coordination.ids import RoleName, Tenant, check_name
from coordination.livekit.asking import ANSWER_WITHIN, LiveKitUnavailable, asking
from coordination.livekit.envelope import MetadataError, Ours, open_envelope, read_ours, write_ours

MAX_METADATA = 64 * 1024
"""Bytes. Older servers allow no more, so a record that is larger would not be portable."""

_WHAT = "metadata"


class _RecordFields(Ours):
    tenant: str | None = None
    caller: str | None = None
    conversation: str | None = None
    user: str | None = None
    role: str | None = None
    fence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """Ids of a call; all are optional, for each is written when it becomes known."""

    tenant: Tenant | None = None
    caller: str | None = None
    """Identity of the participant that every agent of the room links to."""
    conversation: str | None = None
    user: str | None = None
    role: RoleName | None = None
    """The role that held the floor when the record was written."""
    fence: int | None = None
    """The fence it held the floor with; what has a lower one is older."""
    foreign: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What others keep in the room's metadata; survives our writes."""

    @classmethod
    def parse(cls, text: str, *, room: str) -> SessionRecord | None:
        """Reads a room's metadata; None if it holds no record. Raises `MetadataError`, naming room and reason."""
        envelope = open_envelope(text, what=_WHAT, room=room)
        ours = read_ours(_RecordFields, envelope, what=_WHAT, room=room)
        if ours is None:
            return None
        return cls(
            tenant=Tenant(ours.tenant) if ours.tenant else None,
            caller=ours.caller,
            conversation=ours.conversation,
            user=ours.user,
            role=RoleName(ours.role) if ours.role else None,
            fence=ours.fence,
            foreign=envelope.foreign,
        )

    def format(self) -> str:
        """The JSON text of the room's metadata, foreign keys included."""
        ours = _RecordFields(
            tenant=self.tenant,
            caller=self.caller,
            conversation=self.conversation,
            user=self.user,
            role=self.role,
            fence=self.fence,
        )
        return write_ours(ours, self.foreign)

    def over(self, older: SessionRecord) -> SessionRecord:
        """This record, with what it does not know taken from an older one."""
        return SessionRecord(
            tenant=self.tenant or older.tenant,
            caller=self.caller or older.caller,
            conversation=self.conversation or older.conversation,
            user=self.user or older.user,
            role=self.role or older.role,
            fence=self.fence if self.fence is not None else older.fence,
            foreign=self.foreign or older.foreign,
        )


class RoomRecord:
    """Reads and writes the record of one room through LiveKit's server API.

    The holder of the floor is its only writer of ours. LiveKit replaces metadata as a whole, and knows no compare and
    set: another program that writes to the same room's metadata within the same milliseconds can still be overwritten.
    """

    def __init__(self, client: api.LiveKitAPI, room: str, *, answer_within: timedelta = ANSWER_WITHIN) -> None:
        """`client` stays the caller's, who closes it. `room` is the room's name."""
        self._service = client.room
        self._room = check_name(room, "room")
        self._answer_within = answer_within

    async def read(self) -> SessionRecord | None:
        """The record as the server has it; None without one, or without the room.

        Raises `MetadataError` for metadata that is not ours to understand, `LiveKitUnavailable` without an answer.
        """
        return SessionRecord.parse(await self._metadata(), room=self._room)

    async def write(self, record: SessionRecord) -> SessionRecord:
        """Merges `record` into the room's metadata and returns what stands there now.

        Fields that are None keep their value; foreign keys are kept, whatever `record.foreign` says. Raises
        `StaleFence` if the room has the record of a higher fence, `MetadataError` if the whole would exceed 64 KiB or
        what is there cannot be read (it is left alone then), `LiveKitUnavailable` without an answer.
        """
        text = await self._metadata()
        envelope = open_envelope(text, what=_WHAT, room=self._room)
        older = SessionRecord.parse(text, room=self._room) or SessionRecord()
        if record.fence is not None and older.fence is not None and record.fence < older.fence:
            raise StaleFence(f"the record of room {self._room!r}", record.fence, older.fence)
        merged = replace(record.over(older), foreign=envelope.foreign)
        changed = merged.format()
        size = len(changed.encode())
        if size >= MAX_METADATA:
            raise MetadataError(_WHAT, self._room, *_too_large(size, envelope.foreign))
        if changed != text:
            async with self._asking("write the metadata of"):
                await self._service.update_room_metadata(
                    api.UpdateRoomMetadataRequest(room=self._room, metadata=changed)
                )
        return merged

    async def _metadata(self) -> str:
        async with self._asking("read the metadata of"):
            found = await self._service.list_rooms(api.ListRoomsRequest(names=[self._room]))
        return found.rooms[0].metadata if found.rooms else ""

    def _asking(self, purpose: str) -> AbstractAsyncContextManager[None]:
        failure = f"LiveKit did not {purpose} room {self._room!r}"
        return asking(failure, error=LiveKitUnavailable, within=self._answer_within)


def _too_large(size: int, foreign: Mapping[str, JsonValue]) -> tuple[str, str]:
    """Reason and remedy for metadata of `size` bytes."""
    largest = sorted(foreign, key=lambda key: len(str(foreign[key])), reverse=True)[:3]
    named = ", ".join(repr(key) for key in largest)
    return (
        f"it would be {size} bytes, and {MAX_METADATA} is the limit",
        f"Keep less under {named}." if named else "Use shorter ids.",
    )
