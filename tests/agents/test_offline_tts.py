"""The offline voice: audible, in pieces, another one for each role, and readable for the offline ears."""

from __future__ import annotations

import numpy as np
from livekit.agents import tts

from agents.offline.tts import OfflineTTS, voice_of
from config import Role


async def _pieces(voice: OfflineTTS, text: str) -> list[tts.SynthesizedAudio]:
    async with voice.synthesize(text) as speech:
        return [piece async for piece in speech]


async def test_a_sentence_comes_in_pieces_of_sound() -> None:
    voice = OfflineTTS(voice_of("billing"))

    pieces = await _pieces(voice, "Your balance is 64 euros and 90 cents.")

    samples = np.concatenate([np.frombuffer(bytes(piece.frame.data), np.int16) for piece in pieces])
    assert len(pieces) > 5
    assert {piece.frame.sample_rate for piece in pieces} == {voice.sample_rate}
    assert 1.5 < len(samples) / voice.sample_rate < 6
    assert np.abs(samples).max() > 3000


async def test_each_role_sounds_different() -> None:
    sounds = [
        b"".join(bytes(piece.frame.data) for piece in await _pieces(OfflineTTS(voice_of(role)), "Hello."))
        for role in Role
    ]

    assert len(set(sounds)) == len(Role)


async def test_a_session_can_stream_it_sentence_by_sentence() -> None:
    adapter = tts.StreamAdapter(tts=OfflineTTS(voice_of("technical")))
    async with adapter.stream() as stream:
        stream.push_text("I have checked your line. It dropped 14 times since yesterday.")
        stream.end_input()
        heard = sum([piece.frame.duration async for piece in stream])

    assert heard > 2.5
