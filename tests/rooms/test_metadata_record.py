"""The session record in the metadata of a real room, and dispatches to a real server."""

from __future__ import annotations

import json
import socket
from datetime import timedelta

import pytest
from livekit import api

from coordination.errors import DispatchFailed, InvalidName, StaleFence
from coordination.ids import HandoffId, RoleName, Tenant
from coordination.livekit.asking import LiveKitUnavailable
from coordination.livekit.dispatch import DispatchMetadata, RoomDispatcher
from coordination.livekit.envelope import MetadataError
from coordination.livekit.record import RoomRecord, SessionRecord
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer, RoomFactory


async def test_a_record_is_merged_into_what_others_keep_there_and_everybody_sees_it(make_room: RoomFactory) -> None:
    room = await make_room(metadata='{"theirs": {"kept": [1, 2]}}')
    caller = await room.join("caller")
    records = RoomRecord(room.api, room.name)
    assert await records.read() is None

    first = SessionRecord(tenant=Tenant("acme"), caller="caller", role=RoleName("receptionist"), fence=5)
    await records.write(first)
    written = await records.write(SessionRecord(role=RoleName("billing"), fence=6, foreign={"not": "theirs"}))

    assert written == await records.read()
    assert written == SessionRecord(
        tenant=Tenant("acme"),
        caller="caller",
        role=RoleName("billing"),
        fence=6,
        foreign={"theirs": {"kept": [1, 2]}},
    )
    await eventually(lambda: "billing" in caller.metadata, "the caller sees the record")
    assert json.loads(caller.metadata)["theirs"] == {"kept": [1, 2]}


async def test_a_record_with_an_older_fence_is_refused_and_changes_nothing(make_room: RoomFactory) -> None:
    room = await make_room()
    records = RoomRecord(room.api, room.name)
    await records.write(SessionRecord(role=RoleName("billing"), fence=6))

    with pytest.raises(StaleFence):
        await records.write(SessionRecord(role=RoleName("receptionist"), fence=5))

    assert await records.read() == SessionRecord(role=RoleName("billing"), fence=6)


async def test_metadata_that_is_not_ours_to_understand_is_left_alone(make_room: RoomFactory) -> None:
    room = await make_room(metadata="premium customer")
    records = RoomRecord(room.api, room.name)

    with pytest.raises(MetadataError, match="it is not JSON"):
        await records.write(SessionRecord(fence=1))

    assert await room.metadata() == "premium customer"


async def test_a_record_that_would_make_metadata_too_large_is_refused_with_the_largest_key(
    make_room: RoomFactory,
) -> None:
    before = json.dumps({"transcript": "x" * 65_500, "small": 1})
    room = await make_room(metadata=before)
    records = RoomRecord(room.api, room.name)

    with pytest.raises(MetadataError, match=r"65536 is the limit.*'transcript'"):
        await records.write(SessionRecord(tenant=Tenant("acme"), fence=1))

    assert await room.metadata() == before


async def test_a_room_that_is_gone_has_no_record_and_takes_none(livekit_api: api.LiveKitAPI) -> None:
    records = RoomRecord(livekit_api, "no such room")

    assert await records.read() is None
    with pytest.raises(LiveKitUnavailable, match=r"write the metadata of room 'no such room'.*does not exist"):
        await records.write(SessionRecord(fence=1))


async def test_a_dispatch_is_made_listed_and_taken_back(make_room: RoomFactory) -> None:
    room = await make_room()
    dispatcher = RoomDispatcher(room.api, room.name)
    metadata = DispatchMetadata(tenant=Tenant("acme"), handoff=HandoffId("h1"), foreign={"theirs": True})

    made = await dispatcher.dispatch(RoleName("billing"), metadata=metadata.format())

    listed = {each.id: each for each in await dispatcher.list()}
    assert listed[made].role == "billing"
    assert DispatchMetadata.parse(listed[made].metadata, room=room.name) == metadata
    assert await dispatcher.delete(made)
    assert not await dispatcher.delete(made)
    assert made not in {each.id for each in await dispatcher.list()}


async def test_a_dispatch_without_a_role_is_refused_before_it_is_sent(make_room: RoomFactory) -> None:
    room = await make_room()

    with pytest.raises(InvalidName, match="role"):
        await RoomDispatcher(room.api, room.name).dispatch(RoleName(""), metadata="")


async def test_a_refused_key_and_a_server_that_is_away_are_told_apart(livekit_server: LiveKitServer) -> None:
    wrong_key = api.LiveKitAPI(livekit_server.url, livekit_server.api_key, "not the secret of this server, by far")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        away = api.LiveKitAPI(f"ws://127.0.0.1:{taken.getsockname()[1]}", "key", "a secret of at least 32 characters")

        for client, said in (
            (wrong_key, "refused the key.*LIVEKIT_API_SECRET"),
            (away, "cannot be reached.*LIVEKIT_URL"),
        ):
            with pytest.raises(DispatchFailed, match=f"dispatch 'billing' to room 'call-7': it {said}"):
                await RoomDispatcher(client, "call-7").dispatch(RoleName("billing"), metadata="")
            with pytest.raises(LiveKitUnavailable, match=said):
                await RoomRecord(client, "call-7").read()
            await client.aclose()


async def test_a_server_that_hangs_is_given_up_after_the_bound(own_livekit_server: LiveKitServer) -> None:
    client = own_livekit_server.client()
    own_livekit_server.pause()

    with pytest.raises(DispatchFailed, match=r"no answer within 0\.2 s") as failed:
        await RoomDispatcher(client, "call-7", answer_within=timedelta(seconds=0.2)).list()

    own_livekit_server.resume()
    assert failed.value.retryable
    await client.aclose()
