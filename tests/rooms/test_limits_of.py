"""The limits within an agent's reach: in a plain session, and in one that shares its call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from livekit.agents import AgentSession, JobContext, llm

from agents.budgets import within_limits
from agents.providers import Providers, providers_for
from config import Role, load_settings
from coordination.coordinator import Coordinator
from coordination.errors import InvalidSettings
from coordination.limits.config import LimitsConfig
from coordination.livekit import CallLimits, CoordinatedSession, limits_of
from coordination.livekit.limited import LimitedSTT, LimitedTTS
from coordination.settings import CoordinatorSettings
from coordination.testing.emulators import OpenAIEmulator
from tests.rooms.conftest import ListenerFactory, RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.jobs import Job
from tests.rooms.providers import ToneTTS
from tests.rooms.workers import WorkerAgent

GREETING = len("hello from receptionist")
LIMITS = LimitsConfig.parse(
    {"providers": {"voice": {"limits": {"all": {"unit": "characters", "limit": 1000, "period": 86400, "burst": 1000}}}}}
)


@pytest.fixture
async def judge(redis_url: str) -> AsyncIterator[Coordinator]:
    async with Coordinator.open(redis_url, limits=LIMITS) as opened:
        yield opened


async def used(judge: Coordinator) -> float:
    """Characters of the voice that are used up, whoever did."""
    return 1000 - (await judge.limits.show("voice")).limits[0].available


@pytest.mark.parametrize("coordination", ["off", "on"])
async def test_what_an_agent_says_is_counted_to_its_tenant_and_call(
    coordination: str,
    redis_url: str,
    judge: Coordinator,
    make_room: RoomFactory,
    listen: ListenerFactory,
) -> None:
    settings = CoordinatorSettings(redis_url=redis_url, coordination=coordination)
    room = await make_room()
    ears = await listen(room)
    job = Job(room, "receptionist", metadata={"baton": {"v": 1, "tenant": "acme"}})
    before, reached = await used(judge), list[CallLimits]()

    async def entrypoint(ctx: JobContext) -> None:
        limits = await limits_of(ctx, settings=settings, config=LIMITS)
        voice = LimitedTTS(ToneTTS(), budget=limits.budget("voice"))
        session: AgentSession[None] = (
            AgentSession(tts=voice) if coordination == "off" else CoordinatedSession(ctx, settings=settings, tts=voice)
        )
        await session.start(WorkerAgent(), room=ctx.room)
        reached.append(limits)

    job.start(entrypoint)
    try:
        await job.started()
        await eventually(lambda: ears.first_audible(job.identity) is not None, "the agent is heard", within=20)
        (limits,) = reached

        assert await used(judge) - before == pytest.approx(GREETING, abs=1)
        assert (limits.call.tenant, limits.call.name, limits.call.role) == ("acme", room.sid, "receptionist")
        assert limits.limits._store.connected
    finally:
        await job.close()
    assert not limits.limits._store.connected, "the connection is closed with the job"


async def test_without_redis_the_limits_say_what_they_need(make_room: RoomFactory) -> None:
    job = Job(await make_room(), "receptionist")

    with pytest.raises(InvalidSettings, match="BATON_REDIS_URL"):
        await limits_of(job.ctx, settings=CoordinatorSettings(redis_url=None, coordination="off"))
    await job.close()


async def test_the_agents_of_the_demo_use_real_providers_within_the_limits_that_are_configured(
    redis_url: str, make_room: RoomFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are set, and a file of limits: what the language model is asked is counted by the shared limits."""
    monkeypatch.setenv("BATON_REDIS_URL", redis_url)
    monkeypatch.setenv("BATON_LIMITS_FILE", str(tmp_path / "limits.yaml"))
    limit = {"requests": {"unit": "requests", "limit": 100, "period": 86400, "burst": 100}}
    accounts = {"providers": {name: {"limits": limit} for name in ("deepgram", "openai", "elevenlabs")}}
    (tmp_path / "limits.yaml").write_text(json.dumps(accounts))
    for key in ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "ELEVEN_API_KEY"):
        monkeypatch.setenv(key, "any")
    job, reached = Job(await make_room(), "billing"), list[Providers]()

    async def entrypoint(ctx: JobContext) -> None:
        settings = load_settings()
        reached.append(await within_limits(ctx, providers_for(Role.BILLING, settings), settings))

    async with OpenAIEmulator() as model, Coordinator.open(redis_url, limits=LimitsConfig.parse(accounts)) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", model.base_url)
        job.start(entrypoint)
        await job.started()
        (providers,) = reached
        chat = llm.ChatContext.empty()
        chat.add_message(role="user", content="What do I owe you?")
        async with providers.llm.chat(chat_ctx=chat) as stream:
            said = "".join([chunk.delta.content or "" async for chunk in stream if chunk.delta])
        (left,) = (await judge.limits.show("openai")).limits
        await providers.aclose()
        await job.close()

    assert said
    assert (type(providers.stt), type(providers.tts)) == (LimitedSTT, LimitedTTS)
    assert left.available == pytest.approx(99, abs=0.5)
