"""The session record: what a call is, in a few ids, kept in its room's metadata.

Everybody in the room can read it, so it holds ids alone; a worker that takes a call over can read it without Redis. It
outlives Redis, but not a restart of livekit-server: the holder of the floor writes it again then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from livekit import api
from pydantic import JsonValue

from coordination.errors import StaleFence
from coordination.ids import RoleName, RoomName, Tenant
from coordination.livekit.asking import ANSWER_WITHIN
from coordination.livekit.envelope import Ours, look_into, open_envelope, read_ours, write_ours
from coordination.livekit.state.document import transform
from coordination.livekit.state.updates import RoomText, fitting

_WHAT = "metadata"


class _RecordFields(Ours):
    tenant: str | None = None
    caller: str | None = None
    session: str | None = None
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
    session: RoomName | None = None
    """What Redis knows the call by: the sid that the room began with. A restarted server gives it another."""
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
        """Reads a room's metadata; None if it holds no record, as what is no JSON object does not.

        Raises `MetadataError`, naming room and reason, for a record that this release cannot read.
        """
        envelope = look_into(text, what=_WHAT, room=room)
        ours = read_ours(_RecordFields, envelope, what=_WHAT, room=room)
        if ours is None:
            return None
        return cls(
            tenant=Tenant(ours.tenant) if ours.tenant else None,
            caller=ours.caller,
            session=RoomName(ours.session) if ours.session else None,
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
            session=self.session,
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
            session=self.session or older.session,
            conversation=self.conversation or older.conversation,
            user=self.user or older.user,
            role=self.role or older.role,
            fence=self.fence if self.fence is not None else older.fence,
            foreign=self.foreign or older.foreign,
        )


class RoomRecord:
    """Reads and writes the record of one room through LiveKit's server API.

    The holder of the floor is its only writer of ours. What another program writes at the same moment is merged with,
    as far as LiveKit lets anybody see it (`coordination.livekit.state.document`).
    """

    def __init__(self, client: api.LiveKitAPI, room: str, *, answer_within: timedelta = ANSWER_WITHIN) -> None:
        """`client` stays the caller's, who closes it. `room` is the room's name."""
        self._room = room
        self._text = RoomText(client, room, answer_within=answer_within)

    async def read(self) -> SessionRecord | None:
        """The record as the server has it; None without one, or without the room.

        Raises `MetadataError` for a record that this release cannot read, `LiveKitUnavailable` without an answer.
        """
        return SessionRecord.parse(await self._text.read(), room=self._room)

    async def sid(self) -> str:
        """The room's sid as the server has it now; empty without the room. Raises `LiveKitUnavailable`."""
        return await self._text.sid()

    async def write(self, record: SessionRecord, *, beside: Mapping[str, JsonValue] | None = None) -> SessionRecord:
        """Merges `record` into the room's metadata and returns what stands there now.

        Fields that are None keep their value; foreign keys are kept, whatever `record.foreign` says. `beside` is what
        the server has forgotten: foreign keys to write again where they are missing. Raises
        `StaleFence` if the room has the record of a higher fence, `MetadataError` if the whole would exceed 64 KiB or
        what is there cannot be read (it is left alone then), `MetadataContended` if another program overwrites it
        again and again, `LiveKitUnavailable` without an answer.
        """
        merged = SessionRecord.parse(
            await transform(self._text, lambda text: self._over(record, beside or {}, text)), room=self._room
        )
        return merged or SessionRecord()

    def _over(self, record: SessionRecord, beside: Mapping[str, JsonValue], text: str) -> str:
        envelope = open_envelope(text, what=_WHAT, room=self._room)
        older = SessionRecord.parse(text, room=self._room) or SessionRecord()
        if record.fence is not None and older.fence is not None and record.fence < older.fence:
            raise StaleFence(f"the record of room {self._room!r}", record.fence, older.fence)
        changed = open_envelope(record.over(older).format(), what=_WHAT, room=self._room)
        return fitting(replace(changed, foreign={**beside, **envelope.foreign}), text, what=_WHAT, room=self._room)
