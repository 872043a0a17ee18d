"""Speech to text within shared limits."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, stt, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, NotGivenOr
from livekit.agents.utils.audio import calculate_audio_duration

from coordination.limits.units import Unit
from coordination.livekit.limited.budget import Budget, Line, Waiting, once
from coordination.livekit.limited.meter import Meter
from coordination.livekit.limited.racing import first_fault

if TYPE_CHECKING:
    from livekit.agents.voice.events import ConversationItemAddedEvent

SLICE = 5.0
"""Seconds of audio that a stream reserves at a time."""


class LimitedSTT(stt.STT[Any]):
    """Wraps any `stt.STT`. A recording reserves its seconds; a stream reserves `slice_size` of them at a time, before
    it sends them on, and is settled by those that it sent. Either holds a stream until it is closed.

    While it waits, audio waits too: it is late, not lost. `fallback` takes over when the wait for a stream gets too
    long. Closing the wrapper closes both.
    """

    def __init__(
        self,
        wrapped: stt.STT[Any],
        *,
        budget: Budget,
        waiting: Waiting | None = None,
        fallback: stt.STT[Any] | None = None,
        slice_size: float = SLICE,
    ) -> None:
        super().__init__(capabilities=wrapped.capabilities)
        self.wrapped, self.slice_size = wrapped, slice_size
        self.line = Line(wrapped=wrapped, budget=budget, waiting=waiting or Waiting(), fallback=fallback)
        wrapped.on("error", self.line.note_error)  # pyright: ignore[reportUnknownMemberType]

    @property
    def model(self) -> str:
        return self.wrapped.model

    @property
    def provider(self) -> str:
        return self.wrapped.provider

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.SpeechEvent:
        async with AsyncExitStack() as held:
            turn = await self.line.turn(held, {Unit.AUDIO_SECONDS: calculate_audio_duration(buffer)})
            try:
                return await turn.provider.recognize(buffer, language=language, conn_options=once(conn_options))
            except APIError:
                if turn.reservation is not None:
                    turn.reservation.cancel()
                raise

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        return _LimitedStream(self, language, conn_options)

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        self.wrapped._update_session_keyterms(keyterms)  # pyright: ignore[reportPrivateUsage]

    def _push_conversation_item(self, ev: ConversationItemAddedEvent) -> None:
        self.wrapped._push_conversation_item(ev)  # pyright: ignore[reportPrivateUsage]

    def prewarm(self) -> None:
        self.wrapped.prewarm()

    async def aclose(self) -> None:
        self.wrapped.off("error", self.line.note_error)  # pyright: ignore[reportUnknownMemberType]
        await self.wrapped.aclose()
        if self.line.fallback is not None:
            await self.line.fallback.aclose()


class _LimitedStream(stt.RecognizeStream):
    def __init__(self, limited: LimitedSTT, language: NotGivenOr[str], conn_options: APIConnectOptions) -> None:
        self._limited, self._language = limited, language
        super().__init__(stt=limited, conn_options=conn_options)  # pyright: ignore[reportUnknownMemberType]

    async def _run(self) -> None:
        limited = self._limited
        async with AsyncExitStack() as held:
            turn = await limited.line.turn(held, {Unit.AUDIO_SECONDS: limited.slice_size})
            meter = Meter(
                turn.reservation,
                unit=Unit.AUDIO_SECONDS,
                slice_size=limited.slice_size,
                budget=limited.line.budget,
                waiting=limited.line.waiting,
            )
            held.push_async_callback(meter.close)
            opened = turn.provider.stream(language=self._language, conn_options=once(self._conn_options))
            opened.start_time_offset = self.start_time_offset
            stream = await held.enter_async_context(opened)
            try:
                await first_fault(self._hear(stream, meter), self._forward(stream, meter), reservation=turn.reservation)
            except APIError as error:
                meter.failed(error)
                raise

    async def _forward(self, stream: stt.RecognizeStream, meter: Meter) -> None:
        async for data in self._input_ch:
            if isinstance(data, rtc.AudioFrame):
                await meter.use(data.duration)
                stream.push_frame(data)
            else:
                stream.flush()
        stream.end_input()

    async def _hear(self, stream: stt.RecognizeStream, meter: Meter) -> None:
        async for event in stream:
            meter.answered()
            self._context = stream.context
            self._event_ch.send_nowait(event)
