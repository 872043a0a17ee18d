"""Writing a room's metadata: merged into what others keep there, under the floor's fence, within the size it may have.

Several agents in a room means one writer at a time, the holder of the floor: its fence comes along, and the write of a
holder that has been replaced is refused. A server (the backend, a script) has no fence, and says that it is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Final, cast

from livekit import api
from pydantic import BaseModel, JsonValue

from coordination.errors import InvalidArgument, StaleFence
from coordination.ids import check_name
from coordination.livekit.asking import ANSWER_WITHIN, LiveKitUnavailable, asking
from coordination.livekit.envelope import KEY, Envelope, MetadataError, open_envelope
from coordination.livekit.state.document import transform
from coordination.livekit.state.typed import ModelT, read_metadata
from coordination.room.patch import merge_patch

MAX_METADATA: Final = 64 * 1024
"""Bytes. Older servers allow no more, so metadata that are larger would not be portable."""

Changes = Mapping[str, JsonValue] | BaseModel
"""A merge patch (RFC 7396: null removes a key), or a model, whose fields replace those of the same names."""


class RoomText:
    """The metadata text of one room, through the server's API. Raises `LiveKitUnavailable` without an answer."""

    def __init__(self, client: api.LiveKitAPI, room: str, *, answer_within: timedelta = ANSWER_WITHIN) -> None:
        self._service, self._room, self._answer_within = client.room, check_name(room, "room"), answer_within
        self.name = f"metadata of room {room!r}"

    async def read(self) -> str:
        """Empty for a room that has none, or is none."""
        return (await self._find()).metadata

    async def sid(self) -> str:
        """The room's sid as the server has it now; empty for none. A restarted server gives the room another."""
        return (await self._find()).sid

    async def _find(self) -> api.Room:
        async with self._asking("read"):
            found = await self._service.list_rooms(api.ListRoomsRequest(names=[self._room]))
        return found.rooms[0] if found.rooms else api.Room()

    async def write(self, text: str) -> None:
        async with self._asking("write"):
            await self._service.update_room_metadata(api.UpdateRoomMetadataRequest(room=self._room, metadata=text))

    def _asking(self, verb: str) -> AbstractAsyncContextManager[None]:
        failure = f"LiveKit did not {verb} the {self.name}"
        return asking(failure, error=LiveKitUnavailable, within=self._answer_within)


class RoomMetadata:
    """What an application keeps in a room's metadata. Everybody in the room can read it: nothing confidential."""

    def __init__(self, client: api.LiveKitAPI, room: str, *, answer_within: timedelta = ANSWER_WITHIN) -> None:
        """`client` stays the caller's, who closes it; an agent has `ctx.api`. `room` is the room's name."""
        self._room = room
        self._text = RoomText(client, room, answer_within=answer_within)

    async def read(self, model: type[ModelT], *, key: str | None = None) -> ModelT:
        """The metadata as the server has them, as `model`. In a room that is joined, `RoomState.read` costs nothing.

        Raises `MetadataError` and `LiveKitUnavailable`.
        """
        return read_metadata(model, await self._text.read(), room=self._room, key=key)

    async def update(
        self, changes: Changes, *, fence: int | None = None, server: bool = False
    ) -> Mapping[str, JsonValue]:
        """Merges `changes` into the metadata and returns all of it, Baton's own key aside.

        `fence` is that of the floor's lease. In a room that several agents share it is needed, unless the writer is a
        `server` that speaks for none of them. Raises `StaleFence` for a holder that has been replaced,
        `InvalidArgument` for a change of Baton's own key or without the fence that is needed, `MetadataError` for
        metadata that cannot be read (they are left alone) or would exceed 64 KiB, naming the largest keys,
        `MetadataContended`, and `LiveKitUnavailable`. Cancelled, it may or may not have been written.
        """
        patch = patch_of(changes)

        def change(text: str) -> str:
            envelope = open_envelope(text, what="metadata", room=self._room)
            check_fence(envelope, fence, server=server, room=self._room)
            merged = cast("dict[str, JsonValue]", merge_patch(envelope.foreign, patch))
            return fitting(Envelope(ours=envelope.ours, foreign=merged), text, what="metadata", room=self._room)

        written = await transform(self._text, change)
        return open_envelope(written, what="metadata", room=self._room).foreign

    async def transform(
        self,
        change: Callable[[Mapping[str, JsonValue]], Mapping[str, JsonValue]],
        *,
        fence: int | None = None,
        server: bool = False,
    ) -> Mapping[str, JsonValue]:
        """Replaces the keys that are not Baton's by what a pure function makes of them. Raises as `update`."""

        def changed(text: str) -> str:
            envelope = open_envelope(text, what="metadata", room=self._room)
            check_fence(envelope, fence, server=server, room=self._room)
            wanted = patch_of(change(envelope.foreign))
            return fitting(Envelope(ours=envelope.ours, foreign=wanted), text, what="metadata", room=self._room)

        written = await transform(self._text, changed)
        return open_envelope(written, what="metadata", room=self._room).foreign


def patch_of(changes: Changes) -> dict[str, JsonValue]:
    """The changes as a JSON object. Raises `InvalidArgument` if they touch Baton's own key."""
    patch = changes.model_dump(mode="json", by_alias=True) if isinstance(changes, BaseModel) else dict(changes)
    if KEY in patch:
        raise InvalidArgument(f"The key {KEY!r} in metadata is Baton's own: keep yours beside it.")
    return cast("dict[str, JsonValue]", patch)


def check_fence(envelope: Envelope, fence: int | None, *, server: bool, room: str) -> None:
    """Whether the writer may write: see `RoomMetadata.update`."""
    recorded = envelope.ours.get("fence") if isinstance(envelope.ours, dict) else None
    if not isinstance(recorded, int) or isinstance(recorded, bool):
        return
    if fence is not None and fence < recorded:
        raise StaleFence(f"the metadata of room {room!r}", fence, recorded)
    if fence is None and not server:
        raise InvalidArgument(
            f"Several agents share room {room!r}, and the holder of the floor alone writes its metadata: give the "
            "fence of its lease, or server=True if you speak for none of them."
        )


def fitting(envelope: Envelope, before: str, *, what: str, room: str) -> str:
    """The text of `envelope`; the one `before` where nothing differs. Raises `MetadataError` if it is too large."""
    if before and open_envelope(before, what=what, room=room) == envelope:
        return before
    text = envelope.text()
    size = len(text.encode())
    if size > MAX_METADATA:
        raise MetadataError(what, room, *too_large(size, envelope.foreign))
    return text


def too_large(size: int, foreign: Mapping[str, JsonValue]) -> tuple[str, str]:
    """Reason and remedy for metadata of `size` bytes."""
    largest = sorted(foreign, key=lambda key: len(str(foreign[key])), reverse=True)[:3]
    named = ", ".join(repr(key) for key in largest)
    return (
        f"it would be {size} bytes, and {MAX_METADATA} is the limit",
        f"Keep less under {named}." if named else "Use shorter ids.",
    )
