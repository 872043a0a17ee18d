"""After: the front desk, a worker of its own."""

from __future__ import annotations

from typing import Any

from livekit.agents import Agent, JobContext, RunContext, function_tool

from coordination.livekit import Continuation, CoordinatedServer, CoordinatedSession, handoff_to
from examples.handoffs import providers

server = CoordinatedServer()


class FrontDesk(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You answer the phone of a bicycle shop.")

    async def on_enter(self) -> None:
        """Greets a caller who has not talked to anybody yet; `opening` is what the others hear."""
        self.session.say("Hello, this is the bicycle shop.")

    def opening(self, handoff: Continuation) -> str:
        return "You are back at the front desk."

    @function_tool
    async def to_workshop(self, context: RunContext[Any], bicycle: str) -> str | None:
        """Hand the caller to the workshop, for repairs.

        Args:
            bicycle: Which bicycle it is.
        """
        return await handoff_to(context, "workshop", summary="A repair.", facts={"bicycle": bicycle})


@server.rtc_session(agent_name="front-desk")
async def front_desk(ctx: JobContext) -> None:
    session = CoordinatedSession[None](ctx, **providers.providers())
    await session.start(agent=FrontDesk(), room=ctx.room)
