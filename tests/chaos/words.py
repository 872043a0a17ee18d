"""How callers and agents of the chaos runs talk: words as tones, so that what was heard can be read off the recording.

Each turn of a caller ends with two numbers that name it; its answer ends with `yes` and the same two. A caller who
heard those three words from one agent heard the whole answer, and from whom.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from livekit.agents import APIConnectOptions, llm, tts, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS

from coordination.testing.recording import AUDIBLE, FRAME_SAMPLES, FRAME_SECONDS, SAMPLE_RATE, Recording, Samples
from coordination.testing.speech import Speech
from tests.rooms.providers import WORDS, Reply, frequency, utterance

NUMBERS = ("zero", "three", "six", "nine", "invoice")
"""Three tones apart: under load WebRTC stretches sound, and a tone may be read as its neighbour."""
ROLES = ("receptionist", "billing")
LONG = "wait " * int(os.environ.get("TEST_LONG", "12"))
"""Three seconds before the point: somebody to be stopped in mid-sentence."""
_YES = ("refund", "yes", "no")
SHORTEST = 8
"""Frames of a tone that is a word; one that was cut off after less says nothing."""


@dataclass(frozen=True, slots=True)
class HeardWord:
    word: str
    at: float
    until: float


def speech(text: str) -> Speech:
    """The words as a caller's voice."""
    frame = utterance(text, rate=SAMPLE_RATE)
    return Speech(samples=np.frombuffer(bytes(frame.data), np.int16), sample_rate=SAMPLE_RATE)


def name_of(text: str) -> str:
    """The two numbers that name a turn; empty if it has no name."""
    # A tone with a gap in it is read as two of the same word: no name has one twice.
    last = [word for word, _ in groupby(_meant(word) for word in text.split() if word in WORDS)][-2:]
    return " ".join(last) if len(last) == 2 and all(word in NUMBERS for word in last) else ""


def _meant(word: str) -> str:
    """The number next to the tone that was read, if there is one."""
    near = WORDS[max(0, WORDS.index(word) - 1) : WORDS.index(word) + 2]
    return next((number for number in NUMBERS if number in near), word)


def name_number(number: int) -> str:
    """The names of a call's turns, one after the other."""
    first, second = divmod(number % (len(NUMBERS) * (len(NUMBERS) - 1)), len(NUMBERS) - 1)
    return f"{NUMBERS[first]} {NUMBERS[second if second < first else second + 1]}"


def words_heard(recording: Recording, speaker: str) -> Iterator[HeardWord]:
    """What a listener understands of one speaker."""
    samples = next(channel.samples for channel in recording.channels if channel.speaker == speaker)
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES).astype(np.int32)
    loud = np.abs(frames).max(axis=1, initial=0) >= AUDIBLE
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(np.int8)))
    for start, end in edges.reshape(-1, 2).tolist():
        if end - start >= SHORTEST:
            tone = samples[start * FRAME_SAMPLES : end * FRAME_SAMPLES]
            at, until = (recording.started + frame * FRAME_SECONDS for frame in (start, end))
            yield HeardWord(_word(tone), at, until)


def _word(tone: Samples) -> str:
    middle = tone[len(tone) // 5 : -len(tone) // 5].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), n=SAMPLE_RATE))
    pitch = float(np.argmax(spectrum[400:2600]) + 400)
    return min(WORDS, key=lambda word: abs(frequency(word) - pitch))


def answers_heard(words: list[HeardWord]) -> Iterator[tuple[str, HeardWord, HeardWord]]:
    """Each complete answer: the turn's name, and the first and the last word that make it one."""
    words = [next(same) for _, same in groupby(words, key=lambda heard: _meant(heard.word))]
    for first, second, third in zip(words, words[1:], words[2:], strict=False):
        if first.word in _YES and (name := name_of(f"{second.word} {third.word}")):
            yield name, first, third


class WordTTS(tts.TTS):
    """Says the words that it knows, and nothing of the others."""

    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=SAMPLE_RATE, num_channels=1)

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _WordSpeech(tts=self, input_text=text, conn_options=conn_options)


class _WordSpeech(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=SAMPLE_RATE,
            num_channels=1,
            mime_type="audio/pcm",
            frame_size_ms=50,
        )
        known = " ".join(word for word in self.input_text.split() if word in WORDS)
        if known:
            output_emitter.push(array("h", bytes(utterance(known, rate=SAMPLE_RATE).data)).tobytes())
        output_emitter.flush()


def reply(chat: llm.ChatContext, role: str) -> Reply:
    """What a good model says: hands over when asked to, answers what was not answered, and else says a word."""
    items = [item for item in chat.items if item.type in ("message", "function_call_output")]
    turns = [item for item in items if isinstance(item, llm.ChatMessage) and item.role == "user"]
    if not turns:
        return Reply(text="hello")
    asked = turns[-1].text_content or ""
    for other in ROLES:
        if other != role and other in asked.split() and items[-1] is turns[-1]:
            return Reply(tool="transfer", arguments=f'{{"role": "{other}"}}')
    name = name_of(asked)
    behind = items[items.index(turns[-1]) + 1 :]
    said = [item.text_content or "" for item in behind if isinstance(item, llm.ChatMessage)]
    if not name or any(f"yes {name}" in text for text in said):
        return Reply(text="hello")
    return Reply(text=f"{LONG if 'more' in asked.split() else ''}yes {name}")
