"""Limited providers in real calls: what callers hear while their agents wait, and what two workers tell each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from livekit.agents import Agent, AgentSession, APIConnectOptions, ErrorEvent, JobContext
from livekit.agents.voice.agent_session import SessionConnectOptions
from livekit.plugins import elevenlabs, openai

from coordination.coordinator import Coordinator
from coordination.errors import LimitExceeded
from coordination.limits.config import LimitsConfig
from coordination.livekit import CallLimits, CoordinatedSession, limits_of
from coordination.livekit.limited import LimitedLLM, LimitedTTS, ProviderBusy, Waiting
from coordination.settings import CoordinatorSettings
from coordination.testing.emulators import ChatReply, ElevenLabsEmulator, Fault, OpenAIEmulator
from tests.providers.sounds import tone
from tests.rooms.callers import Caller, calling
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.jobs import Job
from tests.rooms.providers import QUICK_TURNS, ToneSTT, ToneTTS, ToneVAD

WITHIN = 30.0
"""Seconds, against hangs."""
QUICKLY = SessionConnectOptions(
    llm_conn_options=APIConnectOptions(max_retry=3, retry_interval=0.05, timeout=10.0), max_unrecoverable_errors=100
)
Parts = Callable[[CallLimits], dict[str, Any]]
"""What a session is made of, given the limits of its call."""
_names = (f"provider-{number}" for number in range(10_000))


@pytest.fixture
def provider() -> str:
    """A name of its own for each test: the store is shared."""
    return next(_names)


def limits(provider: str, *, period: int = 86_400, **sizes: int) -> LimitsConfig:
    rules: dict[str, Any] = {
        unit: {"unit": unit, "limit": size, "transfer_margin": 0}
        if unit == "streams"
        else {"unit": unit, "limit": size, "period": period, "burst": size}
        for unit, size in sizes.items()
    }
    return LimitsConfig.parse({"providers": {provider: {"limits": rules}}})


@asynccontextmanager
async def call(
    make_room: RoomFactory, redis_url: str, config: LimitsConfig, parts: Parts, errors: list[ErrorEvent] | None = None
) -> AsyncIterator[tuple[Caller, Job]]:
    """A caller and an agent in a room; the agent's process has a connection of its own to the limits. `errors` are
    those of the agent's session.
    """
    settings = CoordinatorSettings(redis_url=redis_url)
    room = await make_room()
    job, used = Job(room, "desk"), dict[str, Any]()

    async def entrypoint(ctx: JobContext) -> None:
        used.update(parts(await limits_of(ctx, settings=settings, config=config)))
        session: AgentSession[None] = CoordinatedSession(
            ctx,
            settings=settings,
            stt=ToneSTT(),
            vad=ToneVAD(),
            turn_handling=QUICK_TURNS,
            conn_options=QUICKLY,
            **used,
        )
        session.on("error", (errors if errors is not None else []).append)
        await session.start(Agent(instructions="You answer."), room=ctx.room)

    async with calling(room) as caller:
        job.start(entrypoint)
        try:
            await job.started()
            yield caller, job
        finally:
            await job.close()
            for part in used.values():
                await part.aclose()


async def hears(caller: Caller, job: Job, *, since: float = 0.0) -> float:
    """Waits until the caller hears the agent; when that was."""
    await eventually(
        lambda: caller.ears.first_audible(job.identity, since=since) is not None, "the agent is heard", within=WITHIN
    )
    heard = caller.ears.first_audible(job.identity, since=since)
    assert heard is not None
    return heard


async def fits(judge: Coordinator, provider: str, *, requests: int | None = None, streams: int | None = None) -> bool:
    """Whether that would be admitted now."""
    try:
        reservation = await judge.limits.reserve(
            provider, tenant="judge", timeout=timedelta(0), requests=requests, streams=streams
        )
    except LimitExceeded:
        return False
    reservation.cancel()
    await reservation.close()
    return True


def model(emulator: OpenAIEmulator) -> openai.LLM:
    return openai.LLM(model="gpt-4.1-mini", base_url=emulator.base_url, api_key="acme")


async def test_a_429_that_one_worker_meets_holds_back_the_calls_of_another(
    make_room: RoomFactory, redis_url: str, provider: str
) -> None:
    away = timedelta(seconds=2)
    # Back at its full rate a moment after the time is over.
    config = limits(provider, period=1, requests=100)

    def parts(shared: CallLimits) -> dict[str, Any]:
        return {"llm": LimitedLLM(model(emulator), budget=shared.budget(provider)), "tts": ToneTTS()}

    async with (
        OpenAIEmulator(default=ChatReply(text="yes")) as emulator,
        call(make_room, redis_url, config, parts) as (first, one),
        call(make_room, redis_url, config, parts) as (second, two),
        Coordinator.open(redis_url, limits=config) as judge,
    ):
        emulator.fail(Fault.status(429, retry_after=away))
        await first.text("hello")
        async with asyncio.timeout(WITHIN):
            while await fits(judge, provider, requests=1):
                await asyncio.sleep(0.01)
        closed = emulator.judge.clock()
        await second.text("hello")
        await asyncio.gather(hears(first, one), hears(second, two))

        served = [charge.at for charge in emulator.judge.log]
        assert len(served) == 2, "each was answered, and nobody asked in vain again"
        assert min(served) > closed + away.total_seconds() - 0.5


async def test_a_caller_whose_agent_waits_hears_a_filler_and_then_the_answer(
    make_room: RoomFactory, redis_url: str, provider: str
) -> None:
    config = limits(provider, streams=1)

    def parts(shared: CallLimits) -> dict[str, Any]:
        waiting = Waiting(filler_after=timedelta(milliseconds=200), timeout=timedelta(seconds=WITHIN))
        asked = LimitedLLM(
            model(emulator), budget=shared.budget(provider), waiting=waiting, filler="One moment please."
        )
        return {"llm": asked, "tts": ToneTTS()}

    async with (
        OpenAIEmulator(default=ChatReply(text="yes thanks")) as emulator,
        Coordinator.open(redis_url, limits=config) as other,
        call(make_room, redis_url, config, parts) as (caller, job),
    ):
        holding = await other.limits.reserve(provider, tenant="other", streams=1)
        await caller.text("hello")
        await hears(caller, job)
        assert emulator.judge.total("requests") == 0

        await holding.close()
        await eventually(lambda: emulator.judge.total("requests") == 1, "the answer is asked for", within=WITHIN)
        # Three words are a filler, five are both.
        await eventually(lambda: caller.ears.seconds(job.identity) > 4 * 0.12, "the answer follows", within=WITHIN)


async def test_a_caller_whose_voice_waits_hears_its_filler_and_then_the_answer(
    make_room: RoomFactory, redis_url: str, provider: str
) -> None:
    config = limits(provider, streams=1)
    waiting = Waiting(filler_after=timedelta(milliseconds=200), timeout=timedelta(seconds=WITHIN))

    def parts(shared: CallLimits) -> dict[str, Any]:
        voice = elevenlabs.TTS(base_url=emulator.base_url, api_key="acme", http_session=http, encoding="pcm_16000")
        speaks = LimitedTTS(voice, budget=shared.budget(provider), waiting=waiting, filler=[tone(0.4)])
        return {"llm": model(mind), "tts": speaks}

    async with (
        aiohttp.ClientSession() as http,
        OpenAIEmulator(default=ChatReply(text="On Friday, as ever.")) as mind,
        ElevenLabsEmulator() as emulator,
        Coordinator.open(redis_url, limits=config) as other,
        call(make_room, redis_url, config, parts) as (caller, job),
    ):
        holding = await other.limits.reserve(provider, tenant="other", streams=1)
        await caller.text("hello")
        await hears(caller, job)
        assert emulator.judge.total("characters") == 0

        await holding.close()
        await eventually(lambda: caller.ears.seconds(job.identity) > 1, "the answer follows", within=WITHIN)


async def test_a_caller_is_answered_by_the_fallback_when_the_wait_is_too_long(
    make_room: RoomFactory, redis_url: str, provider: str
) -> None:
    config = limits(provider, requests=1)
    soon = Waiting(fallback_after=timedelta(milliseconds=100))

    def parts(shared: CallLimits) -> dict[str, Any]:
        return {
            "llm": LimitedLLM(model(minds[0]), budget=shared.budget(provider), fallback=model(minds[1]), waiting=soon),
            "tts": ToneTTS(),
        }

    async with AsyncExitStack() as held:
        minds = [await held.enter_async_context(OpenAIEmulator(default=ChatReply(text="yes"))) for _ in range(2)]
        caller, job = await held.enter_async_context(call(make_room, redis_url, config, parts))
        await caller.text("hello")
        first = await hears(caller, job)
        await eventually(lambda: not caller.ears.hears(job.identity, within=0.3), "it has ended", within=WITHIN)
        await caller.text("more")
        await hears(caller, job, since=first + 0.5)

        assert [mind.judge.total("requests") for mind in minds] == [1, 1]


async def test_a_call_goes_on_after_a_refusal_and_has_what_an_operator_allows(
    make_room: RoomFactory, redis_url: str, provider: str
) -> None:
    config = limits(provider, streams=1)
    errors = list[ErrorEvent]()

    def parts(shared: CallLimits) -> dict[str, Any]:
        short = Waiting(timeout=timedelta(milliseconds=200))
        return {"llm": LimitedLLM(model(emulator), budget=shared.budget(provider), waiting=short), "tts": ToneTTS()}

    async with (
        OpenAIEmulator(default=ChatReply(text="yes")) as emulator,
        Coordinator.open(redis_url, limits=config) as operator,
        call(make_room, redis_url, config, parts, errors) as (caller, job),
        operator.limits.reserve(provider, tenant="other", streams=1),
    ):
        await caller.text("hello")
        await eventually(lambda: errors, "the request is refused", within=WITHIN)
        assert isinstance(errors[0].error.error, ProviderBusy)
        assert not job.ended.is_set()

        await operator.limits.set(provider, "streams", {"limit": 2})
        await caller.text("again")
        await hears(caller, job)
        assert emulator.judge.total("requests") == 1
        await operator.limits.set(provider, "streams", None)


async def test_a_barge_in_in_mid_stream_frees_the_slot_while_the_call_goes_on(
    make_room: RoomFactory, redis_url: str, provider: str
) -> None:
    config = limits(provider, streams=1, characters=1000)
    text = "This is a long answer, and it goes on and on until somebody has heard enough of it."

    def parts(shared: CallLimits) -> dict[str, Any]:
        voice = elevenlabs.TTS(base_url=emulator.base_url, api_key="acme", http_session=http, encoding="pcm_16000")
        return {"llm": model(mind), "tts": LimitedTTS(voice, budget=shared.budget(provider))}

    async with (
        aiohttp.ClientSession() as http,
        OpenAIEmulator(replies=[ChatReply(text=text)], default=ChatReply(text="")) as mind,
        # So slow that the provider is still sending when the caller has had enough.
        ElevenLabsEmulator(pace=timedelta(seconds=0.25)) as emulator,
        Coordinator.open(redis_url, limits=config) as judge,
        call(make_room, redis_url, config, parts) as (caller, job),
    ):
        await caller.text("hello")
        await hears(caller, job)
        during = await fits(judge, provider, streams=1)
        await caller.say("wait wait wait")

        assert not during
        async with asyncio.timeout(WITHIN):
            while not await fits(judge, provider, streams=1):
                await asyncio.sleep(0.01)
        await eventually(lambda: emulator.judge.open_streams == 0, "the provider is told", within=WITHIN)
        assert not job.ended.is_set(), "the call goes on"
