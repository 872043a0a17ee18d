"""A language model within shared limits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, ClassVar, Final, cast

from livekit.agents import APIConnectOptions, APIError, FlushSentinel, llm
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, NotGivenOr

from coordination.limits.reservation import Reservation
from coordination.limits.units import Unit
from coordination.livekit.limited.budget import Budget, Line, Waiting, once
from coordination.livekit.limited.estimates import TokenEstimate
from coordination.livekit.limited.feedback import news_of_headers

_FILLER: Final = "filler"


class LimitedLLM(llm.LLM[Any]):
    """Wraps any `llm.LLM`. Each request reserves itself, its tokens by estimate, and a stream; it is settled by the
    usage that the provider reports, or, if it was cut off before that, by what was received.

    `filler`, such as "One moment, please.", is said when the wait gets long, at once and by itself; in the conversation
    it is the begin of the answer.
    `fallback` takes over when it gets too long: another model, within limits of its own if it is wrapped as well.
    Closing the wrapper closes both.
    """

    def __init__(
        self,
        wrapped: llm.LLM[Any],
        *,
        budget: Budget,
        waiting: Waiting | None = None,
        filler: str = "",
        fallback: llm.LLM[Any] | None = None,
        estimate: TokenEstimate | None = None,
    ) -> None:
        super().__init__()
        self.wrapped, self.filler = wrapped, filler
        self.estimate = estimate or TokenEstimate()
        self.line = Line(wrapped=wrapped, budget=budget, waiting=waiting or Waiting(), fallback=fallback)
        wrapped.on("error", self.line.note_error)  # pyright: ignore[reportUnknownMemberType]

    @property
    def model(self) -> str:
        return self.wrapped.model

    @property
    def provider(self) -> str:
        return self.wrapped.provider

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> llm.LLMStream:
        options = {
            "parallel_tool_calls": parallel_tool_calls,
            "tool_choice": tool_choice,
            "extra_kwargs": extra_kwargs,
        }
        return _LimitedStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options, options=options)

    def prewarm(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.wrapped.prewarm(loop=loop)

    async def aclose(self) -> None:
        self.wrapped.off("error", self.line.note_error)  # pyright: ignore[reportUnknownMemberType]
        await super().aclose()
        await self.wrapped.aclose()
        if self.line.fallback is not None:
            await self.line.fallback.aclose()


class _LimitedStream(llm.LLMStream):
    # The wrapped stream has the span of the request; this one would count its usage again.
    _llm_request_span_name: ClassVar[str] = "limited_llm"
    _llm_attempt_span_name: ClassVar[str | None] = None
    _genai_operation_name: ClassVar[str | None] = None

    def __init__(
        self,
        limited: LimitedLLM,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool],
        conn_options: APIConnectOptions,
        options: dict[str, Any],
    ) -> None:
        self._limited, self._options, self._said_filler = limited, options, False
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            limited, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options
        )

    async def _run(self) -> None:
        estimate = self._limited.estimate
        prompt = estimate.prompt(self._chat_ctx, self._tools)
        filler = self._say_filler if self._limited.filler and not self._said_filler else None
        async with AsyncExitStack() as held:
            turn = await self._limited.line.turn(
                held, {Unit.TOKENS: prompt + estimate.completion}, while_waiting=filler
            )
            account = _Account(turn.reservation, prompt, estimate)
            held.callback(account.settle)
            stream = turn.provider.chat(
                chat_ctx=self._chat_ctx, tools=self._tools, conn_options=once(self._conn_options), **self._options
            )
            try:
                async with stream:
                    async for chunk in stream:
                        account.note(chunk)
                        self._event_ch.send_nowait(chunk)
            except APIError:
                account.failed()
                raise
            self._read_headers(stream)

    def _say_filler(self) -> None:
        self._said_filler = True
        text = f"{self._limited.filler.rstrip()} "
        chunk = llm.ChatChunk(id=_FILLER, delta=llm.ChoiceDelta(role="assistant", content=text))
        self._event_ch.send_nowait(chunk)
        self._event_ch.send_nowait(cast(llm.ChatChunk, _SpokenAtOnce()))

    def _read_headers(self, stream: llm.LLMStream) -> None:
        """The plugins that speak OpenAI's protocol keep the answer; there is no public way to its headers."""
        answer: Any = getattr(getattr(stream, "_oai_stream", None), "response", None)
        if answer is not None:
            self._limited.line.note(news_of_headers(answer.headers))


class _SpokenAtOnce(FlushSentinel):
    """Behind a filler: without it, a voice that speaks in sentences would hold it back until the next words come. A
    session takes it for what it is; for everybody else it is a chunk without anything in it.
    """

    id = _FILLER
    delta = None
    usage = None

    def has_response(self) -> bool:
        return False


class _Account:
    """What one request has used so far."""

    def __init__(self, reservation: Reservation | None, prompt: int, estimate: TokenEstimate) -> None:
        self._reservation, self._prompt, self._estimate = reservation, prompt, estimate
        self._received = 0
        self._refused = False
        self._reported: int | None = None

    def note(self, chunk: llm.ChatChunk) -> None:
        self._received += self._estimate.received(chunk)
        if chunk.usage is not None:
            self._reported = chunk.usage.total_tokens

    def failed(self) -> None:
        """The request has failed. A provider that sent nothing has refused it, and counted nothing."""
        self._refused = not self._received

    def settle(self) -> None:
        """By the provider's own count; for an answer that was cut off, by what was sent and received."""
        if self._reservation is None:
            return
        if self._refused:
            self._reservation.cancel()
        else:
            used = self._reported if self._reported is not None else self._prompt + self._received
            self._reservation.settle(tokens=used)
