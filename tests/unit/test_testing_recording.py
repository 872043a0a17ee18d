"""Recordings: sound that arrives in bunches is laid out as it was played, and written as it was laid out."""

from __future__ import annotations

import wave
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from coordination.errors import InvalidArgument
from coordination.testing.hearing import Hearing, Span
from coordination.testing.recording import FRAME_SAMPLES, SAMPLE_RATE, Channel, Ear, Recording, Samples, compose


def tone(frames: int) -> Samples:
    moments = np.arange(frames * FRAME_SAMPLES) / SAMPLE_RATE
    return (8000 * np.sin(2 * np.pi * 440 * moments)).astype(np.int16)


def feed(ear: Ear, arrivals: list[float]) -> None:
    for arrival in arrivals:
        ear.hear(tone(1), at=arrival)


def heard(*ears: Ear, seconds: float = 3.0) -> Hearing:
    return Hearing(compose("caller", list(ears), started=100.0, ended=100.0 + seconds))


def test_frames_that_arrive_late_and_in_a_bunch_are_put_where_they_were_played() -> None:
    ear = Ear(speaker="agent")
    due = [100.5 + 0.01 * index for index in range(100)]
    stalled = [max(moment, 100.9) if moment > 100.6 else moment for moment in due]
    feed(ear, stalled)

    (said,) = heard(ear).utterances()

    assert said.span.start == pytest.approx(50, abs=1)
    assert said.span.end == pytest.approx(150, abs=1)
    assert heard(ear).audible("agent")[said.span.start : said.span.end].all()


def test_a_pause_in_the_track_stays_a_pause() -> None:
    ear = Ear(speaker="agent")
    feed(ear, [100.0 + 0.01 * index for index in range(20)])
    feed(ear, [101.5 + 0.01 * index for index in range(20)])

    first, second = heard(ear).utterances()

    assert first.span.end == pytest.approx(20, abs=1)
    assert second.span.start == pytest.approx(150, abs=1)


def test_jitter_of_arrival_is_not_heard() -> None:
    ear, chance = Ear(speaker="agent"), np.random.default_rng(7)
    feed(ear, sorted(100.0 + 0.01 * index + abs(chance.normal(0, 0.004)) for index in range(200)))

    assert heard(ear).audible("agent")[1:199].all()


@pytest.mark.parametrize("gap_ms", [30, -30])
def test_a_gap_and_an_overlap_of_30_ms_are_told_apart_whatever_the_machine_does(gap_ms: int) -> None:
    one, other = Ear(speaker="one"), Ear(speaker="other")
    feed(one, [100.0 + 0.01 * index for index in range(100)])
    begin = 101.0 + gap_ms / 1000
    feed(other, [max(begin + 0.01 * index, begin + 0.2) for index in range(100)])

    overlaps = heard(one, other).overlaps()

    assert sum(overlap.span.milliseconds for overlap in overlaps) == pytest.approx(max(0, -gap_ms), abs=10)


@pytest.mark.parametrize("phase", [0.0, 0.002, 0.005, 0.0083])
def test_voices_that_touch_do_not_overlap_wherever_the_recording_begins(phase: float) -> None:
    one, other = Ear(speaker="one"), Ear(speaker="other")
    chance = np.random.default_rng(3)
    feed(one, [100.0 + phase + 0.01 * index + abs(chance.normal(0, 0.0005)) for index in range(100)])
    feed(other, [101.0 + phase + 0.01 * index + abs(chance.normal(0, 0.0005)) for index in range(100)])

    hearing = heard(one, other)

    assert hearing.overlaps() == ()
    first, second = hearing.utterances()
    assert second.span.start == first.span.end


def test_two_tracks_of_one_speaker_are_one_voice_and_never_overlap() -> None:
    one, again = Ear(speaker="agent"), Ear(speaker="agent")
    feed(one, [100.0 + 0.01 * index for index in range(50)])
    feed(again, [100.2 + 0.01 * index for index in range(50)])

    hearing = heard(one, again)

    assert len(hearing.recording.channels) == 1
    assert hearing.overlaps() == ()


def test_background_sound_overlaps_but_is_no_utterance() -> None:
    voice, music = Ear(speaker="one"), Ear(speaker="other", voice=False)
    feed(voice, [100.0 + 0.01 * index for index in range(50)])
    feed(music, [100.2 + 0.01 * index for index in range(100)])

    hearing = heard(voice, music)

    assert [said.speaker for said in hearing.utterances()] == ["one"]
    (overlap,) = hearing.overlaps()
    assert overlap.span == Span(start=20, end=50)


def test_a_wav_file_has_the_caller_first_and_everybody_aligned(tmp_path: Path) -> None:
    caller, agent = Ear(speaker="caller"), Ear(speaker="agent", role="billing")
    feed(agent, [101.0 + 0.01 * index for index in range(50)])
    feed(caller, [100.0 + 0.01 * index for index in range(50)])
    recording = compose("caller", [agent, caller], started=100.0, ended=103.0)

    recording.write_wav(tmp_path / "call.wav")

    assert [channel.label for channel in recording.channels] == ["caller", "billing"]
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, SAMPLE_RATE)
        table = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, 2)
    loud = np.abs(table.astype(np.int32)) > 1000
    assert np.flatnonzero(loud[:, 0])[-1] / SAMPLE_RATE == pytest.approx(0.5, abs=0.01)
    assert np.flatnonzero(loud[:, 1])[0] / SAMPLE_RATE == pytest.approx(1.0, abs=0.01)


def test_a_recording_of_nobody_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="nobody was heard"):
        Recording(caller="caller", started=0.0, channels=()).write_wav(tmp_path / "call.wav")


def test_silences_are_found_where_neither_agents_nor_the_caller_speak() -> None:
    channels = (
        Channel(speaker="caller", samples=np.concatenate([tone(50), np.zeros(250 * FRAME_SAMPLES, dtype=np.int16)])),
        Channel(speaker="agent", samples=np.concatenate([np.zeros(100 * FRAME_SAMPLES, dtype=np.int16), tone(50)])),
    )
    hearing = Hearing(Recording(caller="caller", started=0.0, channels=channels))
    whole = Span(start=0, end=300)

    assert hearing.silences(whole, longer_than=timedelta(seconds=1)) == (Span(start=150, end=300),)
    assert len(hearing.silences(whole, longer_than=timedelta(milliseconds=300))) == 2
