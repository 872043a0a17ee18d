"""Whatever else an agent publishes: other tracks are muted without the floor, avatars and video are refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from livekit import rtc
from livekit.agents import BackgroundAudioPlayer
from livekit.agents.voice import io
from livekit.agents.voice.avatar import DataStreamAudioOutput

from coordination.livekit.gate import AudioGate, Gate
from coordination.livekit.tracks import TrackGate, UnsupportedOutput, check_outputs
from tests.rooms.conftest import ListenerFactory
from tests.rooms.ears import eventually
from tests.rooms.rig import RoomFactory
from tests.rooms.speaking import Floor, tone

TAIL = 0.3
AGENT = "agent-A"


async def hold_music() -> AsyncIterator[rtc.AudioFrame]:
    """Without end, as the player wants it, in its own rate."""
    frame = tone(0.1, rate=48000)
    while True:
        yield frame
        await asyncio.sleep(0)


async def test_background_audio_that_knows_nothing_of_the_floor_follows_it(
    make_room: RoomFactory, listen: ListenerFactory
) -> None:
    room = await make_room()
    ears = await listen(room)
    joined = await room.join(AGENT, kind="agent")
    gate, floor = Gate(), Floor()
    tracks = TrackGate(joined, gate)
    tracks.start()
    player = BackgroundAudioPlayer(ambient_sound=hold_music())
    await player.start(room=joined)
    await asyncio.sleep(0.8)
    assert ears.audible(AGENT) == []

    gate.open(floor)
    await eventually(lambda: ears.hears(AGENT), "the music is heard")

    closed = time.monotonic()
    gate.close()
    await asyncio.sleep(0.7)
    last = ears.last_audible(AGENT)
    assert last is not None
    assert last - closed <= TAIL

    gate.open(floor)
    await eventually(lambda: ears.hears(AGENT), "the music is heard again")
    lost = time.monotonic()
    floor.held = False
    await asyncio.sleep(0.7)
    last = ears.last_audible(AGENT)
    assert last is not None
    assert last - lost <= TAIL

    await player.aclose()
    await tracks.aclose()


async def test_a_track_that_was_there_before_is_followed_and_one_muted_by_others_stays_muted(
    make_room: RoomFactory,
) -> None:
    room = await make_room()
    caller = await room.join("caller")
    joined = await room.join(AGENT, kind="agent")
    published: dict[str, rtc.LocalAudioTrack] = {}
    for name in ("jingle", "muted by the application", "roomio_audio"):
        published[name] = rtc.LocalAudioTrack.create_audio_track(name, rtc.AudioSource(48000, 1))
        await joined.local_participant.publish_track(published[name])
    published["muted by the application"].mute()

    def sounding() -> set[str]:
        agent = caller.remote_participants.get(AGENT)
        publications = agent.track_publications.values() if agent else ()
        return {publication.name for publication in publications if not publication.muted}

    await eventually(lambda: sounding() == {"jingle", "roomio_audio"}, "the caller knows the tracks")
    gate = Gate()
    tracks = TrackGate(joined, gate)

    tracks.start()
    await eventually(lambda: sounding() == {"roomio_audio"}, "without the floor all but the voice is muted")
    gate.open(Floor())
    await eventually(lambda: sounding() == {"jingle", "roomio_audio"}, "with the floor the jingle is back")
    gate.close()
    gate.open(Floor())
    gate.close()
    await eventually(lambda: sounding() == {"roomio_audio"}, "the last of several changes counts")
    await tracks.aclose()
    gate.open(Floor())
    await asyncio.sleep(0.1)
    assert sounding() == {"roomio_audio"}


async def test_an_avatar_in_the_room_is_refused(make_room: RoomFactory) -> None:
    room = await make_room()
    await room.join("avatar", kind="agent", **{"lk.publish_on_behalf": AGENT})
    stranger, joined = await room.join("agent-B", kind="agent"), await room.join(AGENT, kind="agent")
    for each in (stranger, joined):
        await eventually(lambda each=each: "avatar" in each.remote_participants, "the avatar is in the room")
    outputs = session_outputs()

    check_outputs(outputs, stranger)
    with pytest.raises(UnsupportedOutput, match="'avatar' cannot be tied to the floor"):
        check_outputs(outputs, joined)


async def test_an_avatar_and_video_in_the_output_are_refused(make_room: RoomFactory) -> None:
    room = await make_room()
    joined = await room.join(AGENT, kind="agent")
    with_avatar, with_video = session_outputs(), session_outputs()

    with_avatar.audio = AudioGate(next_in_chain=DataStreamAudioOutput(joined, destination_identity="avatar"))
    with_video.video = Picture(label="picture", next_in_chain=None)

    with pytest.raises(UnsupportedOutput, match="Start the session without an avatar"):
        check_outputs(with_avatar, joined)
    with pytest.raises(UnsupportedOutput, match="Publish no video"):
        check_outputs(with_video, joined)


def session_outputs() -> io.AgentOutput:
    return io.AgentOutput(lambda: None, lambda: None, lambda: None)


class Picture(io.VideoOutput):
    async def capture_frame(self, text: rtc.VideoFrame) -> None:
        raise AssertionError("nothing is shown in this test")

    def flush(self) -> None:
        raise AssertionError("nothing is shown in this test")
