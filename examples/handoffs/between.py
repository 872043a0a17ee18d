"""Between: the same agents and the same handoffs in one worker, with a session that can share its call."""

from __future__ import annotations

from livekit.agents import JobContext

from coordination.livekit import CoordinatedServer, CoordinatedSession
from examples.handoffs import providers
from examples.handoffs.before import FrontDesk, Repair

server = CoordinatedServer()


@server.rtc_session(agent_name="shop")
async def shop(ctx: JobContext) -> None:
    session = CoordinatedSession[Repair](ctx, userdata=Repair(), **providers.providers())
    await session.start(agent=FrontDesk(), room=ctx.room)
