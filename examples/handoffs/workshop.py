"""After: the workshop, a worker of its own. What it needs to know comes with the handoff."""

from __future__ import annotations

from typing import Any

from livekit.agents import Agent, JobContext, RunContext, function_tool

from coordination.livekit import Continuation, CoordinatedServer, CoordinatedSession, handoff_to
from examples.handoffs import providers

server = CoordinatedServer()


class Workshop(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You take repairs in the workshop of a bicycle shop.")

    def opening(self, handoff: Continuation) -> str:
        """Known before the floor moves, so that it is rendered by then."""
        return f"Workshop here. What is wrong with your {handoff.facts.get('bicycle', 'unknown')} bicycle?"

    @function_tool
    async def to_front_desk(self, context: RunContext[Any]) -> str | None:
        """Hand the caller back to the front desk."""
        return await handoff_to(context, "front-desk", summary="The workshop has what it needs.")


@server.rtc_session(agent_name="workshop")
async def workshop(ctx: JobContext) -> None:
    session = CoordinatedSession[None](ctx, **providers.providers())
    await session.start(agent=Workshop(), room=ctx.room)
