"""Silencing at a real livekit-server: what it confirms, what it does not, and that a silenced agent stays out."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import pytest
from livekit import api, rtc

from coordination.ids import AgentId
from coordination.livekit.identity import declare
from coordination.livekit.silence import RoomSilencer
from coordination.ports import Silenced, Silencer
from tests.rooms.conftest import ListenerFactory
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer, LiveRoom, RoomFactory
from tests.rooms.speaking import tone

AGENT = AgentId("AJ_one")
IDENTITY = "agent-AJ_one"


@asynccontextmanager
async def knocking(room: LiveRoom, identity: str) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    """Joins with the old token, as far as the signalling connection.

    Removed that early, LiveKit's client spends 15 s on setting its media up before it looks again.
    """
    token = room.server.token(room.name, identity, kind="agent")
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{room.server.url}/rtc?access_token={token}&protocol=15") as connection,
    ):
        yield connection


@pytest.fixture
async def room(make_room: RoomFactory) -> LiveRoom:
    return await make_room()


@pytest.fixture
async def silencer(room: LiveRoom) -> AsyncIterator[RoomSilencer]:
    silencer = RoomSilencer(room.api, room.name)
    yield silencer
    await silencer.aclose()


async def test_an_agent_in_mid_sentence_is_removed_and_no_longer_heard(
    room: LiveRoom, silencer: RoomSilencer, listen: ListenerFactory
) -> None:
    ears = await listen(room)
    agent = await room.join(IDENTITY, kind="agent")
    source = rtc.AudioSource(48000, 1, queue_size_ms=5000)
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    await agent.local_participant.publish_track(track)
    await source.capture_frame(tone(4.0, rate=48000))
    await eventually(lambda: ears.hears(IDENTITY), "the agent is heard")

    asked = time.monotonic()
    outcome = await silencer.silence(AGENT)
    took = time.monotonic() - asked

    assert outcome is Silenced.REMOVED
    assert took < 1
    assert IDENTITY not in await room.identities()
    await asyncio.sleep(0.5)
    last = ears.last_audible(IDENTITY)
    assert last is not None
    assert last - asked - took <= 0.3
    await source.aclose()


async def test_an_agent_that_is_not_in_the_room_is_absent(room: LiveRoom, silencer: Silencer) -> None:
    await room.join("caller")

    assert await silencer.silence(AGENT) is Silenced.ABSENT


async def test_in_a_room_that_is_gone_an_agent_is_absent(livekit_api: api.LiveKitAPI) -> None:
    silencer = RoomSilencer(livekit_api, "no such room")

    assert await silencer.silence(AGENT) is Silenced.ABSENT


async def test_an_agent_with_an_identity_of_its_own_is_found_by_introduction(
    room: LiveRoom, silencer: RoomSilencer
) -> None:
    await room.join("billing-voice", kind="agent")
    await room.join("caller")
    assert await silencer.silence(AgentId("AJ_unknown")) is Silenced.ABSENT

    silencer.introduce(AGENT, "billing-voice")
    outcome = await silencer.silence(AGENT)

    assert outcome is Silenced.REMOVED
    assert await room.identities() == {"caller"}


async def test_an_agent_with_an_identity_of_its_own_is_found_by_what_it_declared(
    room: LiveRoom, silencer: RoomSilencer
) -> None:
    await room.join("caller", kind="standard", **{"baton.agent": AGENT})
    await declare(await room.join("billing-voice", kind="agent"), AGENT)

    outcome = await silencer.silence(AGENT)

    assert outcome is Silenced.REMOVED
    assert await room.identities() == {"caller"}


async def test_an_agent_with_the_default_identity_needs_no_declaration(room: LiveRoom) -> None:
    agent = await room.join(IDENTITY, kind="agent")

    await declare(agent, AGENT)

    assert agent.local_participant.attributes == {}


async def test_a_silenced_agent_that_comes_back_is_removed_again_by_whoever_watches(
    room: LiveRoom, silencer: RoomSilencer
) -> None:
    witness = await room.join("agent-AJ_two", kind="agent")
    await room.join(IDENTITY, kind="agent")
    assert await silencer.silence(AGENT) is Silenced.REMOVED
    stop = silencer.watch(witness)

    async with knocking(room, IDENTITY) as connection, asyncio.timeout(5):
        await anext(aiter(connection))
        async for _ in connection:
            pass

    assert IDENTITY not in await room.identities()
    stop()
    stop()
    other = await room.join("agent-AJ_three", kind="agent")
    assert other.isconnected()


async def test_an_agent_condemned_by_another_process_is_removed_where_it_is(
    room: LiveRoom, silencer: RoomSilencer
) -> None:
    sleeper = await room.join(IDENTITY, kind="agent")
    witness = await room.join("agent-AJ_two", kind="agent")
    await eventually(lambda: IDENTITY in witness.remote_participants, "the sleeper is in the room")

    silencer.condemn(AGENT)
    silencer.watch(witness)

    await eventually(lambda: not sleeper.isconnected(), "the sleeper is removed")
    assert silencer.silenced == {AGENT}


async def test_a_server_that_is_down_is_unreachable_within_the_bound() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        client = api.LiveKitAPI(
            f"ws://127.0.0.1:{taken.getsockname()[1]}", "key", "a secret of the length that the server wants"
        )
        silencer = RoomSilencer(client, "room", deadline=timedelta(milliseconds=300))

        asked = time.monotonic()
        outcome = await silencer.silence(AGENT)

        assert outcome is Silenced.UNREACHABLE
        assert time.monotonic() - asked < 1
        assert silencer.silenced == {AGENT}
        await client.aclose()


async def test_a_server_that_hangs_is_unreachable_within_the_bound(own_livekit_server: LiveKitServer) -> None:
    client = own_livekit_server.client()
    silencer = RoomSilencer(client, "room", deadline=timedelta(milliseconds=400), attempt=timedelta(milliseconds=150))
    own_livekit_server.pause()

    asked = time.monotonic()
    outcome = await silencer.silence(AGENT)
    took = time.monotonic() - asked

    own_livekit_server.resume()
    assert outcome is Silenced.UNREACHABLE
    assert took < 1
    assert await silencer.silence(AGENT) is Silenced.ABSENT
    await client.aclose()


async def test_a_server_that_refuses_the_key_confirms_nothing_and_is_asked_once(
    room: LiveRoom, livekit_server: LiveKitServer
) -> None:
    await room.join(IDENTITY, kind="agent")
    client = api.LiveKitAPI(livekit_server.url, livekit_server.api_key, "not the secret of this server, by far")
    silencer = RoomSilencer(client, room.name, deadline=timedelta(seconds=5))

    asked = time.monotonic()
    outcome = await silencer.silence(AGENT)

    assert outcome is Silenced.UNREACHABLE
    assert time.monotonic() - asked < 2
    assert IDENTITY in await room.identities()
    await client.aclose()


async def test_a_short_outage_is_ridden_out(own_livekit_server: LiveKitServer) -> None:
    client = own_livekit_server.client()
    silencer = RoomSilencer(client, "room", deadline=timedelta(seconds=10))
    own_livekit_server.kill()

    waiting = asyncio.create_task(silencer.silence(AGENT))
    await asyncio.sleep(0.1)
    await own_livekit_server.start()

    assert await waiting is Silenced.ABSENT
    await client.aclose()
