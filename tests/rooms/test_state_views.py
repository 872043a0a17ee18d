"""Session state in a real room: what is there, what changes, and what is written to it during a call."""

from __future__ import annotations

import asyncio
import json

import pytest
from livekit import api
from pydantic import BaseModel

from coordination.errors import InvalidArgument, StaleFence
from coordination.livekit.envelope import MetadataError
from coordination.livekit.record import RoomRecord, SessionRecord
from coordination.livekit.state import Change, ChangeKind, ParticipantMetadata, RoomMetadata, RoomState
from coordination.livekit.state.participants import NoSuchParticipant
from tests.rooms.callers import calling
from tests.rooms.ears import eventually
from tests.rooms.rig import RoomFactory


class Preferences(BaseModel):
    language: str = "en"
    volume: int = 5


class Topic(BaseModel):
    topic: str = "none"


async def test_the_room_is_shown_as_it_is_and_not_as_it_was(make_room: RoomFactory) -> None:
    live = await make_room(metadata='{"topic": "invoice"}')
    room = await live.join("agent-A", kind="agent")
    with RoomState(room) as state:
        assert (state.name, await state.sid(), state.connected) == (live.name, live.sid, True)
        assert state.read(Topic).topic == "invoice"
        assert (state.local.identity, state.local.is_agent, state.local.present) == ("agent-A", True, True)
        assert not state.remote

        async with calling(live) as caller:
            await eventually(
                lambda: "caller" in state.remote and bool(state.remote["caller"].tracks),
                "the caller and their track are seen",
                within=8,
            )
            seen = state.remote["caller"]
            assert seen.sid == caller.room.local_participant.sid
            assert not seen.is_agent
            assert seen.joined_at is not None
            assert [track.kind for track in seen.tracks.values()] == [1]
            assert set(state.participants) == {"agent-A", "caller"}
            assert set(state.agents) == {"agent-A"}

            speaking = asyncio.create_task(caller.say("one two three four five six seven eight"))
            await eventually(
                lambda: [who.identity for who in state.active_speakers] == ["caller"], "the caller is heard", within=8
            )
            await speaking
            await caller.room.disconnect()
            await eventually(lambda: not state.remote, "the caller is gone", within=8)
            assert not seen.present
            assert state.active_speakers == ()


async def test_what_a_participant_brought_and_what_a_backend_sets_later_is_read_as_types(
    make_room: RoomFactory,
) -> None:
    live = await make_room()
    room = await live.join("agent-A", kind="agent")
    await live.join("caller", metadata='{"language": "de", "theirs": 1}', volume="7")
    backend = ParticipantMetadata(live.api, live.name)
    told: list[Change] = []
    with RoomState(room) as state:
        state.subscribe(lambda _: 1 / 0)  # pyright: ignore[reportArgumentType] - a handler that fails
        state.subscribe(told.append)
        await eventually(lambda: "caller" in state.remote, "the caller is seen", within=8)
        caller = state.remote["caller"]
        assert caller.read(Preferences) == Preferences(language="de")
        assert caller.read_attributes(Preferences).volume == 7

        written = await backend.update("caller", {"language": "fr"})
        await backend.set_attributes("caller", {"volume": "9", "mood": "good"})
        await backend.set_attributes("caller", {"mood": ""})
        await backend.rename("caller", "Ann")

        assert written == {"language": "fr", "theirs": 1}
        await eventually(
            lambda: caller.read(Preferences).language == "fr" and caller.read_attributes(Preferences).volume == 9,
            "the changes arrive in the call",
        )
        await eventually(lambda: caller.name == "Ann" and "mood" not in caller.attributes, "the rest arrives")
        kinds = {change.kind for change in told if change.identity == "caller"}
        assert {ChangeKind.METADATA, ChangeKind.ATTRIBUTES, ChangeKind.NAME} <= kinds

        # What cannot be read is said with the room and whose it is; the room goes on.
        await backend.write_metadata("caller", "[1]")
        await eventually(lambda: caller.metadata == "[1]", "the bad metadata arrives")
        with pytest.raises(MetadataError, match=rf"participant 'caller' of room '{live.name}'.*JSON list"):
            caller.read(Preferences)
        with pytest.raises(MetadataError, match="JSON list"):
            await backend.update("caller", {"language": "it"})


async def test_nobody_is_written_to_who_is_not_there(make_room: RoomFactory) -> None:
    live = await make_room()
    backend = ParticipantMetadata(live.api, live.name)

    with pytest.raises(NoSuchParticipant, match=f"'ann' is not in room '{live.name}'"):
        await backend.update("ann", {"a": 1})
    with pytest.raises(NoSuchParticipant):
        await backend.set_attributes("ann", {"a": "1"})


async def test_attributes_beyond_64_kib_are_refused_before_they_are_sent(make_room: RoomFactory) -> None:
    live = await make_room()
    caller = await live.join("caller", kept="yes")

    with pytest.raises(MetadataError, match="65536 is the limit"):
        await ParticipantMetadata(live.api, live.name).set_attributes("caller", {"large": "x" * 65_536})

    assert caller.local_participant.attributes == {"kept": "yes"}


async def test_writers_of_one_room_keep_what_the_others_wrote(make_room: RoomFactory) -> None:
    live = await make_room(metadata='{"theirs": {"kept": true}, "gone": 1}')
    room = await live.join("agent-A", kind="agent")
    metadata, record = RoomMetadata(live.api, live.name), RoomRecord(live.api, live.name)

    with RoomState(room) as state:
        async with state.watch(ChangeKind.ROOM_METADATA) as changed, asyncio.timeout(8):
            async with asyncio.TaskGroup() as group:
                for number in range(10):
                    group.create_task(metadata.update({f"k{number}": number}))
                group.create_task(record.write(SessionRecord(caller="caller")))
                group.create_task(metadata.update({"gone": None}))
            async for _ in changed:
                if "k9" in state.metadata and "caller" in state.metadata and "gone" not in state.metadata:
                    break

    found = json.loads(await live.metadata())
    assert found == {
        "theirs": {"kept": True},
        "baton": {"v": 1, "caller": "caller"},
        **{f"k{number}": number for number in range(10)},
    }


async def test_where_agents_share_a_room_the_holder_alone_writes(make_room: RoomFactory) -> None:
    live = await make_room()
    metadata = RoomMetadata(live.api, live.name)
    await RoomRecord(live.api, live.name).write(SessionRecord(fence=7))

    await metadata.update({"by": "holder"}, fence=7)
    with pytest.raises(StaleFence):
        await metadata.update({"by": "old holder"}, fence=6)
    with pytest.raises(InvalidArgument, match="fence of its lease"):
        await metadata.update({"by": "somebody"})
    assert await metadata.read(_By) == _By(by="holder")
    await metadata.update({"by": "backend"}, server=True)

    assert await metadata.read(_By) == _By(by="backend")


class _By(BaseModel):
    by: str


async def test_what_another_program_wrote_between_read_and_write_is_merged_with(make_room: RoomFactory) -> None:
    """It writes its whole text right after ours, without ours in it: ours is written again on top of it."""
    live = await make_room(metadata='{"mine": 0}')
    metadata = RoomMetadata(live.api, live.name)
    write, others = metadata._text.write, ['{"theirs": 1}', '{"theirs": 2}']

    async def overwritten(text: str) -> None:
        await write(text)
        if others:
            await live.api.room.update_room_metadata(
                api.UpdateRoomMetadataRequest(room=live.name, metadata=others.pop(0))
            )

    metadata._text.write = overwritten  # type: ignore[method-assign]

    assert await metadata.update({"mine": 1}) == {"theirs": 2, "mine": 1}
    assert json.loads(await live.metadata()) == {"theirs": 2, "mine": 1}


@pytest.mark.parametrize("text", ["not json", "[]", "5"])
async def test_metadata_that_cannot_be_read_are_left_alone(make_room: RoomFactory, text: str) -> None:
    live = await make_room(metadata=text)

    with pytest.raises(MetadataError):
        await RoomMetadata(live.api, live.name).update({"mine": 1})

    assert await live.metadata() == text


async def test_600_kib_are_refused_by_the_server_or_by_the_reader(make_room: RoomFactory) -> None:
    """What LiveKit lets in can be larger than what we write; it is read up to LiveKit's own limit."""
    live = await make_room()
    with pytest.raises(api.TwirpError):
        await live.api.room.update_room_metadata(
            api.UpdateRoomMetadataRequest(room=live.name, metadata=json.dumps({"x": "y" * 600 * 1024}))
        )
    await live.api.room.update_room_metadata(
        api.UpdateRoomMetadataRequest(room=live.name, metadata=json.dumps({"x": "y" * 100 * 1024, "by": "them"}))
    )
    metadata = RoomMetadata(live.api, live.name)

    assert (await metadata.read(_By)).by == "them"
    with pytest.raises(MetadataError, match=r"65536 is the limit\. Keep less under 'x'"):
        await metadata.update({"mine": 1})
    assert await metadata.update({"x": None}) == {"by": "them"}
