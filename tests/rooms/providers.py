"""Small deterministic speech and language providers for sessions in real rooms.

Words travel as tones: each word of `WORDS` has a frequency of its own. `utterance("one two")` renders them for
a caller's track, and `ToneSTT` writes down exactly the words that it heard: a word whose audio was lost is
missing from the transcript, a word that was heard twice is there twice. `ToneVAD` decides by loudness,
`ToneTTS` speaks a tone per word, `RuleLLM` answers by a function of the conversation.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import APIConnectOptions, llm, stt, tts, utils, vad
from livekit.agents.language import LanguageCode
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, NotGivenOr

_VOCABULARY = (
    "zero one two three four five six seven eight nine ten eleven twelve hello billing technical receptionist "
    "please help invoice line slow refund yes no thanks goodbye again wait tell me more alpha bravo charlie delta"
)
WORDS = tuple(_VOCABULARY.split())
RATE = 16000
WORD_SECONDS = 0.16
GAP_SECONDS = 0.08
LOUD = 600
"""RMS from which 10 ms count as sound."""
HUSH = 0.25
"""Seconds of silence that end a segment, for the VAD and the STT."""

QUICK_TURNS: dict[str, Any] = {
    "turn_detection": "vad",
    "endpointing": {"mode": "fixed", "min_delay": 0.2, "max_delay": 0.5},
    "interruption": {"mode": "vad"},
    "preemptive_generation": {"enabled": False},
}
"""Turns end soon after the caller does: tests wait for them."""


def frequency(word: str) -> float:
    return 500.0 + 45.0 * WORDS.index(word)


def utterance(text: str, *, rate: int = 48000) -> rtc.AudioFrame:
    """The words of `text` as a caller's audio."""
    parts: list[np.ndarray] = []
    for word in text.split():
        count = int(WORD_SECONDS * rate)
        ramp = np.minimum(1.0, np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.01 * rate))
        parts.append(9000 * ramp * np.sin(2 * np.pi * frequency(word) * np.arange(count) / rate))
        parts.append(np.zeros(int(GAP_SECONDS * rate)))
    samples = np.concatenate(parts).astype(np.int16)
    return rtc.AudioFrame(samples.tobytes(), rate, 1, len(samples))


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples.astype(np.float64))))) if len(samples) else 0.0


def _word(samples: np.ndarray) -> str:
    middle = samples[len(samples) // 5 : -len(samples) // 5]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), n=RATE))
    pitch = float(np.argmax(spectrum[400:2600]) + 400)
    return min(WORDS, key=lambda word: abs(frequency(word) - pitch))


@dataclass(slots=True)
class _Segments:
    """Cuts audio into tones and silences, 10 ms at a time."""

    rest: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))

    def pieces(self, frame: rtc.AudioFrame) -> list[np.ndarray]:
        self.rest = np.concatenate([self.rest, np.frombuffer(bytes(frame.data), np.int16)])
        size = RATE // 100
        count = len(self.rest) // size
        pieces = [self.rest[i * size : (i + 1) * size] for i in range(count)]
        self.rest = self.rest[count * size :]
        return pieces


class ToneSTT(stt.STT):
    """Transcribes the words it heard; `delay` is how long the final transcript takes after the silence.

    With `interim`, words are shown as soon as they were heard.
    """

    def __init__(self, *, delay: float = 0.0, interim: bool = True) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=interim))
        self.delay, self.interim = delay, interim
        self.streams = 0
        """How many streams were opened: what a provider would bill."""

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        self.streams += 1
        return _ToneStream(self, conn_options)


class _ToneStream(stt.RecognizeStream):
    def __init__(self, provider: ToneSTT, conn_options: APIConnectOptions) -> None:
        super().__init__(stt=provider, conn_options=conn_options, sample_rate=RATE)
        self._delay, self._interim = provider.delay, provider.interim

    async def _run(self) -> None:
        segments, tone, words, hush = _Segments(), [], [], 0.0
        async for frame in self._input_ch:
            if not isinstance(frame, rtc.AudioFrame):
                continue
            for piece in segments.pieces(frame):
                if _rms(piece) >= LOUD:
                    tone.append(piece)
                    hush = 0.0
                    continue
                if len(tone) >= 8:
                    words.append(_word(np.concatenate(tone)))
                    if self._interim:
                        self._emit(stt.SpeechEventType.INTERIM_TRANSCRIPT, words)
                tone = []
                hush += 0.01
                if words and hush >= HUSH:
                    if self._delay:
                        await asyncio.sleep(self._delay)
                    self._emit(stt.SpeechEventType.FINAL_TRANSCRIPT, words)
                    words = []

    def _emit(self, kind: stt.SpeechEventType, words: Sequence[str]) -> None:
        data = stt.SpeechData(language=LanguageCode("en"), text=" ".join(words), confidence=1.0)
        self._event_ch.send_nowait(stt.SpeechEvent(type=kind, alternatives=[data]))


class ToneVAD(vad.VAD):
    def __init__(self) -> None:
        super().__init__(capabilities=vad.VADCapabilities(update_interval=0.01))

    def stream(self) -> vad.VADStream:
        return _ToneVADStream(self)


class _ToneVADStream(vad.VADStream):
    async def _main_task(self) -> None:
        segments = _Segments()
        resampler: rtc.AudioResampler | None = None
        speaking, loud, hush, spoken, index = False, 0.0, 0.0, 0.0, 0
        async for frame in self._input_ch:
            if not isinstance(frame, rtc.AudioFrame):
                continue
            frames = [frame]
            if frame.sample_rate != RATE:
                resampler = resampler or rtc.AudioResampler(frame.sample_rate, RATE)
                frames = resampler.push(frame)
            for piece in [piece for each in frames for piece in segments.pieces(each)]:
                index += len(piece)
                sound = _rms(piece) >= LOUD
                loud, hush = (loud + 0.01, 0.0) if sound else (0.0 if not speaking else loud, hush + 0.01)
                spoken = spoken + 0.01 if speaking or sound else 0.0
                self._send(vad.VADEventType.INFERENCE_DONE, index, spoken, hush, speaking, loud)
                if not speaking and loud >= 0.05:
                    speaking = True
                    self._send(vad.VADEventType.START_OF_SPEECH, index, spoken, 0.0, True, loud)
                elif speaking and hush >= HUSH:
                    speaking = False
                    self._send(vad.VADEventType.END_OF_SPEECH, index, spoken, hush, False, 0.0)
                    loud, spoken = 0.0, 0.0

    def _send(
        self, kind: vad.VADEventType, index: int, spoken: float, hush: float, speaking: bool, loud: float
    ) -> None:
        self._event_ch.send_nowait(
            vad.VADEvent(
                type=kind,
                samples_index=index,
                timestamp=time.time(),
                speech_duration=spoken if speaking else 0.0,
                silence_duration=hush,
                speaking=speaking,
                raw_accumulated_silence=hush,
                raw_accumulated_speech=loud if hush == 0.0 else 0.0,
            )
        )


class ToneTTS(tts.TTS):
    """Speaks `seconds_per_word` of tone for each word, at once or after `first_byte` seconds."""

    def __init__(self, *, pitch: float = 880.0, seconds_per_word: float = 0.12, first_byte: float = 0.0) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=24000, num_channels=1)
        self.pitch, self.seconds_per_word, self.first_byte = pitch, seconds_per_word, first_byte
        self.texts: list[str] = []
        """What was asked for, in order."""

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        self.texts.append(text)
        return _ToneSpeech(tts=self, input_text=text, conn_options=conn_options)


class _ToneSpeech(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        voice = self._tts
        assert isinstance(voice, ToneTTS)
        if voice.first_byte:
            await asyncio.sleep(voice.first_byte)
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=voice.sample_rate,
            num_channels=1,
            mime_type="audio/pcm",
            frame_size_ms=50,
        )
        count = int(voice.seconds_per_word * len(self.input_text.split()) * voice.sample_rate)
        wave = 8000 * np.sin(2 * np.pi * voice.pitch * np.arange(count) / voice.sample_rate)
        output_emitter.push(array("h", wave.astype(np.int16)).tobytes())
        output_emitter.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model answers: text, a call of a tool, or both."""

    text: str = ""
    tool: str = ""
    arguments: str = "{}"


Rule = Callable[[llm.ChatContext], Reply]


def last_user_text(chat: llm.ChatContext) -> str:
    """What the caller said last, if nothing came after it; else an empty string."""
    items = [item for item in chat.items if item.type in ("message", "function_call_output")]
    last = items[-1] if items else None
    return (last.text_content or "") if isinstance(last, llm.ChatMessage) and last.role == "user" else ""


class RuleLLM(llm.LLM):
    """Answers by `rule`; keeps the conversations it was asked to continue in `requests`."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.requests: list[llm.ChatContext] = []

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: object,
    ) -> llm.LLMStream:
        self.requests.append(chat_ctx.copy())
        return _RuleStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _RuleStream(llm.LLMStream):
    async def _run(self) -> None:
        model = self._llm
        assert isinstance(model, RuleLLM)
        reply = model.rule(self._chat_ctx)
        calls = []
        if reply.tool:
            calls = [llm.FunctionToolCall(name=reply.tool, arguments=reply.arguments, call_id=utils.shortuuid("call_"))]
        delta = llm.ChoiceDelta(role="assistant", content=reply.text or None, tool_calls=calls)
        self._event_ch.send_nowait(llm.ChatChunk(id=utils.shortuuid("chunk_"), delta=delta))
