"""Speech to text without a network, behind LiveKit's ordinary `stt.STT`.

What it can't do: free dictation, names, addresses, other languages than English, noise, or voices far from the ones
it was calibrated with. It knows a few hundred words of one domain; what is not of the domain becomes `[unclear]`, so
that a model asks back instead of acting on words that were never said.
"""

from __future__ import annotations

import asyncio
import contextlib

from livekit import rtc
from livekit.agents import NOT_GIVEN, APIConnectOptions, NotGivenOr, stt, utils

from agents.offline.reader import Reader
from agents.offline.recogniser import SAMPLE_RATE
from agents.offline.unclear import UNCLEAR


class OfflineSTT(stt.STT[str]):
    """pocketsphinx, one utterance at a time.

    It does not stream: a session cuts utterances out of the audio by its voice activity detection
    (`stt.StreamAdapter`, which an agent applies by itself). The work is done in a process of its own, started by
    `prewarm` or with the first utterance, and ended by `aclose`.
    """

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=False, interim_results=False))
        self._reader = Reader()
        self._starting: asyncio.Task[None] | None = None

    @property
    def model(self) -> str:
        return "pocketsphinx-en-us"

    @property
    def provider(self) -> str:
        return "offline"

    def prewarm(self) -> None:
        """Starts the recogniser's process in the background; it is ready within half a second."""
        if self._starting is None:
            with contextlib.suppress(RuntimeError):  # without a loop the first utterance starts it
                self._starting = asyncio.get_running_loop().create_task(
                    self._reader.start(), name="start the offline recogniser"
                )

    async def aclose(self) -> None:
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.to_thread(self._reader.close)

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        samples = _mono_16k(rtc.combine_audio_frames(buffer))
        reading = await self._reader.read(samples)
        text = reading.text if reading.in_domain else UNCLEAR
        return stt.SpeechEvent(
            type=stt.SpeechEventType.FINAL_TRANSCRIPT,
            request_id=utils.shortuuid("offline_stt_"),
            alternatives=[stt.SpeechData(language=_ENGLISH, text=text, confidence=reading.confidence)],
        )


_ENGLISH = stt.SpeechData(language="en", text="").language  # type: ignore[arg-type]  # the framework converts it


def _mono_16k(frame: rtc.AudioFrame) -> bytes:
    if frame.sample_rate == SAMPLE_RATE and frame.num_channels == 1:
        return bytes(frame.data)
    resampler = rtc.AudioResampler(
        frame.sample_rate, SAMPLE_RATE, num_channels=frame.num_channels, quality=rtc.AudioResamplerQuality.HIGH
    )
    pieces = [*resampler.push(frame), *resampler.flush()]
    mixed = rtc.combine_audio_frames(pieces)
    if mixed.num_channels == 1:
        return bytes(mixed.data)
    raise ValueError("the offline recogniser takes mono audio")
