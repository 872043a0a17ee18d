"""One worker process of the scenario: several calls at once, each a conversation with the real plugins.

`python -m agents.limits.worker` reads its orders from standard input, a line of JSON each, and answers in the same way.
A call asks one question after another, as fast as it is answered; there is no room and no microphone around it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import numpy as np
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, llm, stt, tts
from livekit.plugins import deepgram, elevenlabs, openai

from agents.limits.setting import limits
from coordination import Coordinator
from coordination.errors import LimitError
from coordination.limits.reservation import Reservation
from coordination.limits.units import Unit
from coordination.livekit.limited import Budget, LimitedLLM, LimitedSTT, LimitedTTS, ProviderBusy, Waiting

RATE = 16000
NOTICED = 0.05
"""Seconds of waiting from which a request counts as one that waited."""
OPTIONS = APIConnectOptions(max_retry=3, retry_interval=0.25, timeout=10.0)


@dataclass(slots=True)
class Counts:
    """What became of the requests to the language model, and of the calls, of one tenant."""

    calls: int = 0
    calls_refused: int = 0
    admitted: int = 0
    waited: int = 0
    refused: int = 0
    turns: int = 0
    broken: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedBudget(Budget):
    """Counts what it reserves."""

    counts: Counts = field(default_factory=Counts)

    async def reserve(self, costs: Mapping[Unit, float], *, timeout: timedelta) -> Reservation:
        try:
            reservation = await Budget.reserve(self, costs, timeout=timeout)
        except ProviderBusy:
            self.counts.refused += 1
            raise
        self.counts.admitted += 1
        self.counts.waited += reservation.waited > NOTICED
        return reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the process is to do."""

    calls: list[tuple[str, str]]
    """Room and tenant of each call."""
    seconds: float
    redis_url: str
    """Empty: without the limiter."""
    openai: str
    deepgram: str
    elevenlabs: str


@dataclass(slots=True)
class Voice:
    """What one call speaks and thinks with."""

    ears: stt.STT[Any]
    mind: llm.LLM[Any]
    mouth: tts.TTS[Any]


async def work(order: Order) -> dict[str, Counts]:
    """All calls of this process, at once."""
    counts: dict[str, Counts] = {tenant: Counts() for _, tenant in order.calls}
    async with AsyncExitStack() as held:
        http = await held.enter_async_context(aiohttp.ClientSession())
        coordinator: Coordinator | None = None
        if order.redis_url:
            coordinator = await held.enter_async_context(Coordinator.open(order.redis_url, limits=limits()))
        calls = [_call(order, room, tenant, counts[tenant], http, coordinator) for room, tenant in order.calls]
        await asyncio.gather(*calls)
    return counts


async def _call(
    order: Order, room: str, tenant: str, counts: Counts, http: aiohttp.ClientSession, coordinator: Coordinator | None
) -> None:
    counts.calls += 1
    voice = _plugins(order, tenant, http)
    async with AsyncExitStack() as held:
        held.push_async_callback(voice.mind.aclose)
        held.push_async_callback(voice.mouth.aclose)
        if coordinator is not None:
            try:
                lease = await coordinator.limits.call(room, tenant=tenant)
            except LimitError:
                counts.calls_refused += 1
                return
            held.push_async_callback(lease.end)
            voice = _limited(voice, coordinator, tenant, counts)
        try:
            async with asyncio.timeout(order.seconds):
                while True:
                    await _turn(voice, counts)
        except TimeoutError:
            return


def _plugins(order: Order, tenant: str, http: aiohttp.ClientSession) -> Voice:
    """The tenant as the key: that is how the providers can tell who used how much."""
    return Voice(
        ears=deepgram.STT(base_url=order.deepgram, api_key=tenant, http_session=http),
        mind=openai.LLM(model="gpt-4.1-mini", base_url=order.openai, api_key=tenant),
        mouth=elevenlabs.TTS(base_url=order.elevenlabs, api_key=tenant, http_session=http, encoding="pcm_16000"),
    )


def _limited(voice: Voice, coordinator: Coordinator, tenant: str, counts: Counts) -> Voice:
    waiting = Waiting(timeout=timedelta(seconds=60))

    def budget(provider: str) -> dict[str, Any]:
        return {"budget": Budget(limits=coordinator.limits, provider=provider, tenant=tenant), "waiting": waiting}

    mind = CountedBudget(limits=coordinator.limits, provider="openai", tenant=tenant, counts=counts)
    return Voice(
        ears=LimitedSTT(voice.ears, **budget("deepgram")),
        mind=LimitedLLM(voice.mind, budget=mind, waiting=waiting),
        mouth=LimitedTTS(voice.mouth, **budget("elevenlabs")),
    )


async def _turn(voice: Voice, counts: Counts) -> None:
    """The caller asks, the model answers, the voice says it."""
    try:
        asked = await _hear(voice.ears)
        chat = llm.ChatContext()
        chat.add_message(role="user", content=asked)
        answer = await voice.mind.chat(chat_ctx=chat, conn_options=OPTIONS).collect()
        async with voice.mouth.stream(conn_options=OPTIONS) as stream:
            stream.push_text(answer.text)
            stream.end_input()
            async for _ in stream:
                pass
    except APIError:
        counts.broken += 1
        await asyncio.sleep(0.1)
    else:
        counts.turns += 1


async def _hear(ears: stt.STT[Any]) -> str:
    """What was said in a second of speech."""
    samples = (8000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.int16)
    samples[: RATE // 10] = 0
    samples[-RATE // 2 :] = 0
    async with ears.stream(conn_options=OPTIONS) as stream:
        stream.push_frame(rtc.AudioFrame(samples.tobytes(), RATE, 1, len(samples)))
        stream.flush()
        async for event in stream:
            if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                return event.alternatives[0].text
    return ""


def main() -> None:
    """Says that it is ready, and carries out one order after another until its input ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        counts = asyncio.run(work(Order(**json.loads(line))))
        print(json.dumps({tenant: asdict(each) for tenant, each in counts.items()}), flush=True)


if __name__ == "__main__":
    main()
