"""The instruments of this folder are right themselves: what is published is heard, and nothing else is."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from itertools import pairwise

from livekit import rtc

from tests.rooms.conftest import ListenerFactory
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer, RoomFactory


def tone(seconds: float, *, rate: int = 48000, hertz: float = 440.0) -> rtc.AudioFrame:
    count = int(seconds * rate)
    samples = array("h", (int(8000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(count)))
    return rtc.AudioFrame(samples.tobytes(), rate, 1, count)


async def test_a_listener_hears_who_speaks_and_when(make_room: RoomFactory, listen: ListenerFactory) -> None:
    room = await make_room()
    ears = await listen(room)
    speaker = await room.join("agent-A", kind="agent")
    await room.join("agent-B", kind="agent")
    source = rtc.AudioSource(48000, 1, queue_size_ms=1000)
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    publication = await speaker.local_participant.publish_track(track)
    await publication.wait_for_subscription()
    await asyncio.sleep(0.2)

    began = time.monotonic()
    await source.capture_frame(tone(0.5))
    await eventually(lambda: ears.hears("agent-A"), "the tone is heard")
    await source.wait_for_playout()
    await eventually(lambda: not ears.hears("agent-A", within=0.3), "the tone has ended")

    assert 0.4 <= ears.seconds("agent-A") <= 0.7
    first, last = ears.first_audible("agent-A"), ears.last_audible("agent-A")
    assert first is not None
    assert last is not None
    assert began < first < last
    assert not ears.audible("agent-B")
    assert all(one.at <= two.at for one, two in pairwise(ears.frames("agent-A")))
    await source.aclose()


async def test_nobody_is_heard_who_has_left(make_room: RoomFactory, listen: ListenerFactory) -> None:
    """The next track gets the place of one that ended: the dead seemed to speak with the voice of the living."""
    room = await make_room()
    ears = await listen(room)

    async def speak(identity: str) -> rtc.Room:
        speaker = await room.join(identity, kind="agent")
        source = rtc.AudioSource(48000, 1, queue_size_ms=1000)
        publication = await speaker.local_participant.publish_track(
            rtc.LocalAudioTrack.create_audio_track("voice", source)
        )
        await publication.wait_for_subscription()
        await source.capture_frame(tone(0.5))
        await eventually(lambda: ears.hears(identity), f"{identity} is heard")
        await source.wait_for_playout()
        return speaker

    first = await speak("agent-A")
    await first.disconnect()
    await eventually(lambda: "agent-A" not in ears.room.remote_participants, "the first has left")
    left = time.monotonic()
    for number in range(3):
        await (await speak(f"agent-{number}")).disconnect()

    assert ears.seconds("agent-A", since=left + 0.1) == 0


async def test_two_rooms_have_nothing_in_common(make_room: RoomFactory) -> None:
    one, other = await make_room(metadata='{"a": 1}'), await make_room()

    joined = await one.join("caller")

    assert one.sid != other.sid
    assert await joined.sid == one.sid
    assert await one.identities() == {"caller"}
    assert await other.identities() == set()
    assert await one.metadata() == '{"a": 1}'


async def test_a_server_of_its_own_can_be_killed_and_comes_back(own_livekit_server: LiveKitServer) -> None:
    first = own_livekit_server.pid
    own_livekit_server.kill()

    own_livekit_server.start_now()

    assert own_livekit_server.pid != first
