"""The room as it is: views on what LiveKit's own room object holds, with types where it has texts.

Nothing is kept here except who speaks, which the SDK tells and does not hold. A view of a participant who has left
shows what was known last, and says that they are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from livekit import rtc
from livekit.rtc.participant import ConnectionQuality

from coordination.livekit.identity import is_agent
from coordination.livekit.room_events import on_room
from coordination.livekit.state.changes import Change, ChangeKind, Changes, Handler
from coordination.livekit.state.typed import ModelT, read_attributes, read_metadata


class ParticipantState:
    """A participant as the room has it at each look."""

    __slots__ = ("_room", "participant")

    def __init__(self, room: rtc.Room, participant: rtc.Participant) -> None:
        self._room = room
        self.participant = participant
        """LiveKit's own object, for whatever is not listed here."""

    @property
    def identity(self) -> str:
        return self.participant.identity

    @property
    def sid(self) -> str:
        return self.participant.sid

    @property
    def name(self) -> str:
        return self.participant.name

    @property
    def metadata(self) -> str:
        return self.participant.metadata

    @property
    def attributes(self) -> Mapping[str, str]:
        return self.participant.attributes

    @property
    def joined_at(self) -> datetime | None:
        return self.participant.joined_at

    @property
    def is_agent(self) -> bool:
        """Whether the server vouches for it as an agent."""
        return is_agent(self.participant)

    @property
    def present(self) -> bool:
        """Whether it is in the room now; for the local participant, whether the room is connected."""
        if isinstance(self.participant, rtc.LocalParticipant):
            return self._room.isconnected()
        return self._room.remote_participants.get(self.identity) is self.participant

    @property
    def tracks(self) -> Mapping[str, rtc.TrackPublication]:
        """Its track publications by their sid."""
        return self.participant.track_publications

    @property
    def connection_quality(self) -> ConnectionQuality:
        return self.participant.connection_quality

    def read(self, model: type[ModelT], *, key: str | None = None) -> ModelT:
        """Its metadata as `model`; see `read_metadata`. Raises `MetadataError`, naming room and participant."""
        return read_metadata(model, self.metadata, room=self._room.name, what=self._what("metadata"), key=key)

    def read_attributes(self, model: type[ModelT], *, prefix: str = "") -> ModelT:
        """Its attributes as `model`; see `read_attributes`. Raises `MetadataError`."""
        what = self._what("attributes")
        return read_attributes(model, self.attributes, room=self._room.name, what=what, prefix=prefix)

    def _what(self, part: str) -> str:
        return f"{part} of participant {self.identity!r}"


class RoomState:
    """What one connected room is now. Close it with the session, or use it in `with`."""

    def __init__(self, room: rtc.Room) -> None:
        """`room` is `ctx.room`; it stays the job's."""
        self.room = room
        self._speaking: tuple[str, ...] = ()
        self._changes = Changes(room)
        self._end = on_room(room, "active_speakers_changed", self._on_speakers)

    def __enter__(self) -> RoomState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Follows the room no longer. Views go on showing it. Closing twice does no harm."""
        self._end()
        self._changes.close()

    # -- the room ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.room.name

    async def sid(self) -> str:
        """The room's sid; LiveKit tells it a moment after the room is connected."""
        return await self.room.sid

    @property
    def metadata(self) -> str:
        return self.room.metadata

    @property
    def connected(self) -> bool:
        return self.room.isconnected()

    def read(self, model: type[ModelT], *, key: str | None = None) -> ModelT:
        """The room's metadata as `model`; see `read_metadata`. Raises `MetadataError`, naming the room."""
        return read_metadata(model, self.metadata, room=self.name, key=key)

    # -- who is there -----------------------------------------------------------------------------

    @property
    def local(self) -> ParticipantState:
        """This process's own participant; the room must be connected."""
        return ParticipantState(self.room, self.room.local_participant)

    @property
    def remote(self) -> Mapping[str, ParticipantState]:
        """The others by identity."""
        others = self.room.remote_participants
        return {identity: ParticipantState(self.room, other) for identity, other in others.items()}

    @property
    def participants(self) -> Mapping[str, ParticipantState]:
        """Everybody by identity, the local participant first."""
        return {self.local.identity: self.local, **self.remote}

    @property
    def agents(self) -> Mapping[str, ParticipantState]:
        """All whom the server vouches for as agents, this one included if it is one."""
        return {identity: each for identity, each in self.participants.items() if each.is_agent}

    @property
    def active_speakers(self) -> tuple[ParticipantState, ...]:
        """Who speaks now, the loudest first, as LiveKit tells it."""
        everybody = self.participants
        return tuple(everybody[identity] for identity in self._speaking if identity in everybody)

    # -- what changes -----------------------------------------------------------------------------

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Calls `handler` for each change; see `Changes.subscribe`. The result ends that."""
        return self._changes.subscribe(handler)

    @asynccontextmanager
    async def watch(self, *kinds: ChangeKind) -> AsyncGenerator[AsyncIterator[None]]:
        """`async with state.watch(ChangeKind.ROOM_METADATA) as changed: async for _ in changed: ...`

        Yields once for the state as it is, and again after changes of these kinds (all without any). Changes that come
        while the body works are one: the state is looked at afterwards, so the newest is never missed.
        """
        changed = asyncio.Event()
        changed.set()

        def note(change: Change) -> None:
            if not kinds or change.kind in kinds:
                changed.set()

        async def each() -> AsyncIterator[None]:
            while True:
                await changed.wait()
                changed.clear()
                yield

        end = self.subscribe(note)
        try:
            yield each()
        finally:
            end()

    def _on_speakers(self, speakers: list[rtc.Participant]) -> None:
        self._speaking = tuple(speaker.identity for speaker in speakers)
        self._changes.tell(Change(kind=ChangeKind.SPEAKERS))
