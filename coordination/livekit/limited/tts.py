"""A voice within shared limits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar, cast

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, tts, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, USERDATA_TIMED_TRANSCRIPT

from coordination.limits.units import Unit
from coordination.livekit.limited.budget import Budget, Line, Turn, Waiting, once
from coordination.livekit.limited.meter import Meter
from coordination.livekit.limited.racing import first_fault

SLICE = 200
"""Characters that a stream reserves at a time: two or three sentences."""


class LimitedTTS(tts.TTS[Any]):
    """Wraps any `tts.TTS`. A text reserves its characters; a stream reserves `slice_size` of them at a time, before
    it sends them on, and is settled by those that it sent. Either holds a stream until it is closed.

    `filler` is audio that is played when the wait gets long, in the wrapped voice's format; `fallback` is a voice that
    takes over when it gets too long. Closing the wrapper closes both voices.
    """

    def __init__(
        self,
        wrapped: tts.TTS[Any],
        *,
        budget: Budget,
        waiting: Waiting | None = None,
        filler: Sequence[rtc.AudioFrame] = (),
        fallback: tts.TTS[Any] | None = None,
        slice_size: int = SLICE,
    ) -> None:
        super().__init__(
            capabilities=wrapped.capabilities, sample_rate=wrapped.sample_rate, num_channels=wrapped.num_channels
        )
        self.wrapped, self.filler, self.slice_size = wrapped, tuple(filler), slice_size
        self.line = Line(wrapped=wrapped, budget=budget, waiting=waiting or Waiting(), fallback=fallback)
        wrapped.on("error", self.line.note_error)  # pyright: ignore[reportUnknownMemberType]

    class Markup(tts.TTS.Markup):
        """Speaks the dialect of the wrapped voice."""

        def _provider_key(self) -> str:
            voice = cast(LimitedTTS, self._tts)  # pyright: ignore[reportUnknownMemberType]
            return voice.wrapped.markup._provider_key()  # pyright: ignore[reportPrivateUsage]

    def _set_expressive(self, enabled: bool) -> None:
        super()._set_expressive(enabled)
        self.wrapped._set_expressive(enabled)  # pyright: ignore[reportPrivateUsage]

    @property
    def model(self) -> str:
        return self.wrapped.model

    @property
    def provider(self) -> str:
        return self.wrapped.provider

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _LimitedText(self, text, conn_options)

    def stream(self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> tts.SynthesizeStream:
        return _LimitedStream(self, conn_options)

    def prewarm(self) -> None:
        self.wrapped.prewarm()

    async def aclose(self) -> None:
        self.wrapped.off("error", self.line.note_error)  # pyright: ignore[reportUnknownMemberType]
        await self.wrapped.aclose()
        if self.line.fallback is not None:
            await self.line.fallback.aclose()


class _Outlet:
    """Pushes audio of whichever voice in the format that the wrapper promised."""

    def __init__(self, limited: LimitedTTS, emitter: tts.AudioEmitter) -> None:
        self._limited, self._emitter = limited, emitter
        self._resampler: rtc.AudioResampler | None = None

    def play_filler(self) -> None:
        for frame in self._limited.filler:
            self._emitter.push_frame(frame)

    def begin(self, turn: Turn[tts.TTS[Any]]) -> None:
        if turn.provider.sample_rate != self._limited.sample_rate:
            self._resampler = rtc.AudioResampler(turn.provider.sample_rate, self._limited.sample_rate)

    def push(self, audio: tts.SynthesizedAudio) -> None:
        if timed := audio.frame.userdata.get(USERDATA_TIMED_TRANSCRIPT):
            self._emitter.push_timed_transcript(timed)
        for frame in self._resampler.push(audio.frame) if self._resampler else [audio.frame]:
            self._emitter.push_frame(frame)

    def end(self) -> None:
        for frame in self._resampler.flush() if self._resampler else []:
            self._emitter.push_frame(frame)


class _LimitedText(tts.ChunkedStream):
    _tts_request_span_name: ClassVar[str] = "limited_tts"
    _tts_attempt_span_name: ClassVar[str | None] = None

    def __init__(self, limited: LimitedTTS, text: str, conn_options: APIConnectOptions) -> None:
        self._limited = limited
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            tts=limited, input_text=text, conn_options=conn_options
        )

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        limited, text = self._limited, self._input_text
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=limited.sample_rate,
            num_channels=limited.num_channels,
            mime_type="audio/pcm",
        )
        outlet = _Outlet(limited, output_emitter)
        async with AsyncExitStack() as held:
            turn = await limited.line.turn(
                held,
                {Unit.CHARACTERS: max(1, len(text))},
                while_waiting=outlet.play_filler if limited.filler else None,
            )
            outlet.begin(turn)
            spoken = False
            try:
                async with turn.provider.synthesize(text, conn_options=once(self._conn_options)) as stream:
                    async for audio in stream:
                        spoken = True
                        outlet.push(audio)
            except APIError:
                if not spoken and turn.reservation is not None:
                    turn.reservation.cancel()
                raise
            outlet.end()
        output_emitter.flush()


class _LimitedStream(tts.SynthesizeStream):
    _tts_request_span_name: ClassVar[str] = "limited_tts"
    _tts_attempt_span_name: ClassVar[str | None] = None

    def __init__(self, limited: LimitedTTS, conn_options: APIConnectOptions) -> None:
        self._limited = limited
        super().__init__(tts=limited, conn_options=conn_options)  # pyright: ignore[reportUnknownMemberType]

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        limited = self._limited
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=limited.sample_rate,
            num_channels=limited.num_channels,
            mime_type="audio/pcm",
            stream=True,
        )
        first = await self._first_text()
        if first is None:
            return
        output_emitter.start_segment(segment_id=utils.shortuuid())
        outlet = _Outlet(limited, output_emitter)
        async with AsyncExitStack() as held:
            slice_size = max(limited.slice_size, len(first))
            turn = await limited.line.turn(
                held,
                {Unit.CHARACTERS: slice_size},
                while_waiting=outlet.play_filler if limited.filler else None,
            )
            outlet.begin(turn)
            meter = Meter(
                turn.reservation,
                unit=Unit.CHARACTERS,
                slice_size=slice_size,
                budget=limited.line.budget,
                waiting=limited.line.waiting,
            )
            held.push_async_callback(meter.close)
            stream = await held.enter_async_context(turn.provider.stream(conn_options=once(self._conn_options)))
            try:
                await first_fault(
                    self._speak(stream, outlet, meter),
                    self._forward(first, stream, meter),
                    reservation=turn.reservation,
                )
            except APIError as error:
                meter.failed(error)
                raise
            outlet.end()
        output_emitter.end_segment()

    async def _first_text(self) -> str | None:
        """Nothing is reserved before there is something to say; None if there never is."""
        async for data in self._input_ch:
            if isinstance(data, str):
                return data
        return None

    async def _forward(self, first: str, stream: tts.SynthesizeStream, meter: Meter) -> None:
        await meter.use(len(first))
        self._mark_started()
        stream.push_text(first)
        async for data in self._input_ch:
            if isinstance(data, str):
                await meter.use(len(data))
                stream.push_text(data)
            else:
                stream.flush()
        stream.end_input()

    async def _speak(self, stream: tts.SynthesizeStream, outlet: _Outlet, meter: Meter) -> None:
        async for audio in stream:
            meter.answered()
            outlet.push(audio)
