"""The gate's own rules, with outputs that only take down what reaches them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from livekit import rtc
from livekit.agents.voice import io

from coordination.livekit.gate import AudioGate, Gate, TextGate


@dataclass(slots=True)
class Floor:
    held: bool = True


class Tape(io.AudioOutput):
    """Plays at once, and remembers every frame."""

    def __init__(self, sample_rate: int | None = 24000) -> None:
        super().__init__(label="tape", capabilities=io.AudioOutputCapabilities(pause=True), sample_rate=sample_rate)
        self.frames: list[rtc.AudioFrame] = []
        self.paused = False

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.frames.append(frame)

    def flush(self) -> None:
        super().flush()
        if self.frames:
            self.on_playback_finished(playback_position=sum(f.duration for f in self.frames), interrupted=False)

    def clear_buffer(self) -> None:
        pass

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Page(io.TextOutput):
    def __init__(self) -> None:
        super().__init__(label="page", next_in_chain=None)
        self.text = ""

    async def capture_text(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        self.text += "."


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def frame(milliseconds: int, *, rate: int = 24000, channels: int = 1) -> rtc.AudioFrame:
    count = rate * milliseconds // 1000
    data = b"".join((n % 30000).to_bytes(2, "little", signed=True) for n in range(count * channels))
    return rtc.AudioFrame(data, rate, channels, count)


def test_a_gate_is_closed_until_it_has_a_lease_that_is_held() -> None:
    gate, floor = Gate(), Floor()
    assert not gate.is_open

    gate.open(floor)
    assert gate.is_open
    floor.held = False
    assert not gate.is_open
    floor.held = True
    gate.close()
    gate.close()

    assert not gate.is_open
    assert gate.lease is None


def test_listeners_are_told_of_each_change_until_they_end_it() -> None:
    gate = Gate()
    told: list[bool] = []
    end = gate.on_change(lambda: told.append(gate.is_open))

    gate.open(Floor())
    gate.close()
    end()
    gate.open(Floor())

    assert told == [True, False]


async def test_waiting_for_an_open_gate_ends_with_the_lease_and_can_be_cancelled() -> None:
    gate, floor = Gate(), Floor()
    waiting, given_up = asyncio.create_task(gate.wait_open()), asyncio.create_task(gate.wait_open())
    await settle()

    given_up.cancel()
    gate.open(floor)

    assert await waiting is floor
    with pytest.raises(asyncio.CancelledError):
        await given_up


@pytest.mark.parametrize("channels", [1, 2])
async def test_frames_are_cut_into_pieces_without_losing_a_sample(channels: int) -> None:
    tape = Tape()
    gate = AudioGate(next_in_chain=tape)
    gate.open(Floor())
    whole = frame(75, channels=channels)

    await gate.capture_frame(whole)

    assert [round(piece.duration * 1000) for piece in tape.frames] == [20, 20, 20, 15]
    assert {piece.num_channels for piece in tape.frames} == {channels}
    assert b"".join(bytes(piece.data) for piece in tape.frames) == bytes(whole.data)


async def test_the_gate_asks_for_the_rate_that_its_next_output_needs() -> None:
    assert AudioGate(next_in_chain=Tape(16000)).sample_rate == 16000
    assert AudioGate(next_in_chain=Tape(None)).sample_rate is None


async def test_an_utterance_that_was_never_let_through_counts_as_no_segment() -> None:
    gate = AudioGate(next_in_chain=Tape())
    held = asyncio.create_task(gate.capture_frame(frame(20)))
    await settle()

    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    gate.flush()
    gate.clear_buffer()

    assert gate.captured_playout_segments == 0
    await asyncio.wait_for(gate.wait_for_playout(), 1)


async def test_what_is_behind_is_paused_while_an_utterance_has_lost_its_floor_and_resumed_at_its_end() -> None:
    tape = Tape()
    gate = AudioGate(next_in_chain=tape)
    gate.open(Floor())
    await gate.capture_frame(frame(20))
    assert not tape.paused

    gate.close()
    assert tape.paused
    gate.resume()
    assert tape.paused, "a session that resumes cannot open what the floor has closed"
    gate.flush()

    assert not tape.paused


async def test_a_session_that_pauses_holds_the_next_piece_until_it_resumes() -> None:
    tape = Tape()
    gate = AudioGate(next_in_chain=tape)
    gate.open(Floor())
    gate.pause()
    waiting = asyncio.create_task(gate.capture_frame(frame(20)))
    await settle()
    assert tape.frames == []

    gate.resume()
    await waiting

    assert len(tape.frames) == 1


async def test_the_end_of_an_utterance_that_changed_hands_is_told_as_interrupted() -> None:
    gate = AudioGate(next_in_chain=Tape())
    told: list[io.PlaybackFinishedEvent] = []
    gate.on("playback_finished", told.append)
    gate.open(Floor())
    await gate.capture_frame(frame(20))

    gate.open(Floor())
    await gate.capture_frame(frame(40))
    gate.flush()

    assert [(event.interrupted, round(event.playback_position, 3)) for event in told] == [(True, 0.02)]
    assert gate.statistics.discarded.total_seconds() == pytest.approx(0.04)


async def test_text_waits_for_the_floor_and_is_dropped_when_the_floor_changed_hands_in_between() -> None:
    page, gate = Page(), Gate()
    text = TextGate(next_in_chain=page, gate=gate)
    first = asyncio.create_task(text.capture_text("one "))
    await settle()
    assert page.text == ""

    gate.open(Floor())
    await first
    gate.open(Floor())
    await text.capture_text("two ")
    text.flush()
    await text.capture_text("three")
    text.flush()

    assert page.text == "one .three."


def silence(milliseconds: int, *, rate: int = 24000) -> rtc.AudioFrame:
    count = rate * milliseconds // 1000
    return rtc.AudioFrame(bytes(2 * count), rate, 1, count)


async def test_an_utterance_that_waits_for_the_floor_begins_with_its_first_sound() -> None:
    tape = Tape()
    output = AudioGate(next_in_chain=tape)

    async with asyncio.timeout(5):  # a bound against a hang: silence that waits would wait for ever
        await output.capture_frame(silence(200))
    assert not output.waiting.is_set(), "silence is not worth waiting with"
    capturing = asyncio.create_task(output.capture_frame(frame(40)))
    await settle()
    assert output.waiting.is_set()
    output.open(Floor())
    await capturing
    await output.capture_frame(silence(20))

    assert [any(each.data) for each in tape.frames] == [True, True, False], "later silence belongs to the utterance"
    assert not output.waiting.is_set()
