"""One worker of the scenario: a worker like any other, whose agents use the real plugins on emulated providers.

Its jobs stay within the shared limits or not, as they are told: the scenario compares the two.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from livekit.agents import Agent, APIConnectOptions, ErrorEvent, JobContext, llm, stt, tts
from livekit.agents.voice.agent_session import SessionConnectOptions
from livekit.plugins import deepgram, elevenlabs, openai

from agents.limits.setting import BROKEN_TOPIC, ROLE, Order, limits
from coordination.livekit import CallAdmission, CallLimits, CoordinatedServer, CoordinatedSession, limits_of
from coordination.livekit.limited import LimitedLLM, LimitedSTT, LimitedTTS, Waiting

WAITING = Waiting(timeout=timedelta(seconds=60))
OPTIONS = APIConnectOptions(max_retry=3, retry_interval=0.25, timeout=10.0)
QUICK: dict[str, Any] = {
    "turn_detection": "stt",
    "endpointing": {"mode": "fixed", "min_delay": 0.1, "max_delay": 0.2},
    "preemptive_generation": {"enabled": False},
}

_PRELOADED = ["agents.limits.worker", "openai.resources.models", "openai.resources.chat", "anyio._backends._asyncio"]
"""Once for all job processes: twelve that import them at the same moment stand still for seconds."""

# Twice its part of the calls: those of the first half may still be ending when the second begins.
server = CoordinatedServer(admission=CallAdmission(limits=limits()), max_jobs=8, preload_modules=_PRELOADED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    """What one call hears, thinks and speaks with."""

    ears: stt.STT[Any]
    mind: llm.LLM[Any]
    mouth: tts.TTS[Any]


class Broken:
    """Tells the caller when there will be no answer."""

    def __init__(self, ctx: JobContext) -> None:
        self._ctx = ctx
        self._telling: set[asyncio.Task[None]] = set()

    def note(self, event: ErrorEvent) -> None:
        if getattr(event.error, "recoverable", True):
            return
        task = asyncio.create_task(self._tell(), name="no answer")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        if self._ctx.room.isconnected():
            await self._ctx.room.local_participant.publish_data(b"broken", topic=BROKEN_TOPIC)


@server.rtc_session(agent_name=ROLE)
async def entrypoint(ctx: JobContext) -> None:
    order = Order.read(ctx.job.metadata)
    used = _plugins(order)
    if order.limited:
        used = _limited(used, await limits_of(ctx, config=limits()))
    session = CoordinatedSession[None](
        ctx,
        stt=used.ears,
        llm=used.mind,
        tts=used.mouth,
        vad=None,
        turn_handling=QUICK,
        user_away_timeout=None,
        # A model that is refused again and again ends no call here: its failures are counted.
        conn_options=SessionConnectOptions(
            llm_conn_options=OPTIONS, stt_conn_options=OPTIONS, tts_conn_options=OPTIONS, max_unrecoverable_errors=1000
        ),
    )

    session.on("error", Broken(ctx).note)
    await session.start(agent=Agent(instructions="You tell callers when their invoice is due."), room=ctx.room)


def _plugins(order: Order) -> Providers:
    return Providers(
        ears=deepgram.STT(base_url=order.deepgram, api_key=order.account),
        mind=openai.LLM(model="gpt-4.1-mini", base_url=order.openai, api_key=order.account),
        mouth=elevenlabs.TTS(base_url=order.elevenlabs, api_key=order.account, encoding="pcm_16000"),
    )


def _limited(used: Providers, shared: CallLimits) -> Providers:
    return Providers(
        ears=LimitedSTT(used.ears, budget=shared.budget("deepgram"), waiting=WAITING),
        mind=LimitedLLM(used.mind, budget=shared.budget("openai"), waiting=WAITING),
        mouth=LimitedTTS(used.mouth, budget=shared.budget("elevenlabs"), waiting=WAITING),
    )
