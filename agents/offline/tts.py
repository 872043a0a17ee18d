"""Text to speech without a network, behind LiveKit's ordinary `tts.TTS`.

What it can't do: sound like a person, follow markup, speak other languages than English. It is quick: a
sentence takes a few milliseconds.
"""

from __future__ import annotations

import asyncio

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, tts, utils

from coordination.testing.speech import synthesize
from coordination.testing.voices import PRESETS, Voice

SAMPLE_RATE = 22_050
"""espeak-ng's own."""
_PIECE = SAMPLE_RATE // 10
"""A tenth of a second: what is handed on at a time, so that playing begins before all is there."""


class OfflineTTS(tts.TTS[str]):
    """espeak-ng with one voice, a sentence at a time (`tts.StreamAdapter`, which an agent applies by itself)."""

    def __init__(self, voice: Voice) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=SAMPLE_RATE, num_channels=1)
        self._voice = voice

    @property
    def model(self) -> str:
        return f"espeak-ng {self._voice.full_name}"

    @property
    def provider(self) -> str:
        return "offline"

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Rendering(tts=self, input_text=text, conn_options=conn_options, voice=self._voice)


class _Rendering(tts.ChunkedStream):
    def __init__(self, *, tts: OfflineTTS, input_text: str, conn_options: APIConnectOptions, voice: Voice) -> None:
        self._voice = voice
        super().__init__(tts=tts, input_text=input_text, conn_options=conn_options)

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        speech = await asyncio.to_thread(synthesize, self._input_text, voice=self._voice)
        output_emitter.initialize(
            request_id=utils.shortuuid("offline_tts_"),
            sample_rate=speech.sample_rate,
            num_channels=1,
            mime_type="audio/pcm",
        )
        for begin in range(0, len(speech.samples), _PIECE):
            output_emitter.push(speech.samples[begin : begin + _PIECE].tobytes())
        output_emitter.flush()


def voice_of(role: str) -> Voice:
    """The voice of a role's agent. Raises `KeyError` for a role without one."""
    return PRESETS[role]
