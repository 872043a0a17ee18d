"""The limits within an agent's reach: in a plain session, and in one that shares its call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from livekit.agents import AgentSession, JobContext

from coordination.coordinator import Coordinator
from coordination.errors import InvalidSettings
from coordination.limits.config import LimitsConfig
from coordination.livekit import CallLimits, CoordinatedSession, limits_of
from coordination.livekit.limited import LimitedTTS
from coordination.settings import CoordinatorSettings
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
