"""Writing what belongs to one participant: metadata, attributes, name. From an agent or from a backend, in mid-call.

All go through the server's API, so that the writer need not be the participant, and the participant need not be
allowed to. Attributes are merged by LiveKit itself, key by key. Neither is a signal: LiveKit advises against frequent
changes, and folds those that follow each other quickly.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, cast

from livekit import api
from pydantic import BaseModel, JsonValue

from coordination.errors import CoordinationError, InvalidArgument
from coordination.ids import check_name
from coordination.livekit.asking import ANSWER_WITHIN, LiveKitUnavailable, asking, is_absent
from coordination.livekit.envelope import Envelope, MetadataError, open_envelope
from coordination.livekit.state.document import transform
from coordination.livekit.state.typed import ModelT, attributes_of, read_metadata
from coordination.livekit.state.updates import Changes, fitting, patch_of
from coordination.room.patch import merge_patch

MAX_ATTRIBUTES: Final = 64 * 1024
"""Bytes of all keys and values of a participant together."""


class NoSuchParticipant(CoordinationError):
    """The participant is not in the room."""

    def __init__(self, identity: str, room: str) -> None:
        self.identity, self.room = identity, room
        super().__init__(
            f"{identity!r} is not in room {room!r}, so nothing was written. What is to be there when they join goes "
            "into their token, or into room metadata."
        )


class ParticipantMetadata:
    """Metadata and attributes of the participants of one room, through the server's API."""

    def __init__(self, client: api.LiveKitAPI, room: str, *, answer_within: timedelta = ANSWER_WITHIN) -> None:
        """`client` stays the caller's, who closes it; an agent has `ctx.api`. `room` is the room's name."""
        self._service, self._room, self._answer_within = client.room, check_name(room, "room"), answer_within

    async def read(self, identity: str, model: type[ModelT], *, key: str | None = None) -> ModelT:
        """A participant's metadata as the server has them. Raises `NoSuchParticipant`, `MetadataError`."""
        text = (await self._participant(identity)).metadata
        return read_metadata(model, text, room=self._room, what=_what(identity), key=key)

    async def update(self, identity: str, changes: Changes) -> Mapping[str, JsonValue]:
        """Merges `changes` into a participant's metadata and returns them all.

        Raises `NoSuchParticipant`; otherwise as `RoomMetadata.update`, without a fence.
        """
        patch, what = patch_of(changes), _what(identity)

        def change(text: str) -> str:
            envelope = open_envelope(text, what=what, room=self._room)
            merged = cast("dict[str, JsonValue]", merge_patch(envelope.foreign, patch))
            # An empty text would be taken for "leave it as it is".
            return fitting(Envelope(ours=envelope.ours, foreign=merged), text, what=what, room=self._room) or "{}"

        written = await transform(_Text(self, identity), change)
        return open_envelope(written, what=what, room=self._room).foreign

    async def set_attributes(
        self, identity: str, attributes: Mapping[str, str] | BaseModel, *, prefix: str = ""
    ) -> None:
        """Sets these attributes, keeps all others; an empty value removes one.

        Raises `NoSuchParticipant`, `MetadataError` beyond 64 KiB in all, `LiveKitUnavailable`.
        """
        wanted = attributes_of(attributes) if isinstance(attributes, BaseModel) else dict(attributes)
        wanted = {prefix + name: value for name, value in wanted.items()}
        checked = cast("Mapping[str, object]", wanted)
        if not all(isinstance(value, str) for value in checked.values()):
            raise InvalidArgument("An attribute is a text: give a str for each, or a model.")
        merged = {**(await self._participant(identity)).attributes, **wanted}
        size = sum(len(name.encode()) + len(value.encode()) for name, value in merged.items() if value)
        if size > MAX_ATTRIBUTES:
            reason = f"they would have {size} bytes, and {MAX_ATTRIBUTES} is the limit"
            raise MetadataError(f"attributes of {identity!r}", self._room, reason, "Keep large things in the backend.")
        async with self._asking("write", identity):
            await self._service.update_participant(
                api.UpdateParticipantRequest(room=self._room, identity=identity, attributes=wanted)
            )

    async def rename(self, identity: str, name: str) -> None:
        """Changes the name that others see. Raises `NoSuchParticipant`, `LiveKitUnavailable`."""
        check_name(name, "participant")
        async with self._asking("rename", identity):
            await self._service.update_participant(
                api.UpdateParticipantRequest(room=self._room, identity=identity, name=name)
            )

    async def write_metadata(self, identity: str, text: str) -> None:
        """Replaces a participant's metadata as a whole."""
        async with self._asking("write", identity):
            await self._service.update_participant(
                api.UpdateParticipantRequest(room=self._room, identity=identity, metadata=text)
            )

    async def read_text(self, identity: str) -> str:
        """A participant's metadata as they stand there."""
        return (await self._participant(identity)).metadata

    def what(self, identity: str) -> str:
        return f"{_what(identity)} of room {self._room!r}"

    async def _participant(self, identity: str) -> api.ParticipantInfo:
        async with self._asking("show", identity):
            request = api.RoomParticipantIdentity(room=self._room, identity=check_name(identity, "participant"))
            return await self._service.get_participant(request)

    @asynccontextmanager
    async def _asking(self, verb: str, identity: str) -> AsyncGenerator[None]:
        failure = f"LiveKit did not {verb} participant {identity!r} of room {self._room!r}"
        try:
            async with asking(failure, error=LiveKitUnavailable, within=self._answer_within):
                yield
        except LiveKitUnavailable as refusal:
            if is_absent(refusal.__cause__):
                raise NoSuchParticipant(identity, self._room) from refusal
            raise


class _Text:
    """One participant's metadata, as `transform` wants it."""

    def __init__(self, participants: ParticipantMetadata, identity: str) -> None:
        self._participants, self._identity = participants, identity
        self.name = participants.what(identity)

    async def read(self) -> str:
        return await self._participants.read_text(self._identity)

    async def write(self, text: str) -> None:
        await self._participants.write_metadata(self._identity, text)


def _what(identity: str) -> str:
    return f"metadata of participant {identity!r}"
