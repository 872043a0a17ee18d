"""Before: both agents live in one worker, and a tool that returns an agent hands the caller over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, function_tool, llm

from examples.handoffs import providers

server = AgentServer()


@dataclass
class Repair:
    """What both agents know, because they share a process."""

    bicycle: str = "unknown"


class FrontDesk(Agent):
    def __init__(self, *, chat_ctx: llm.ChatContext | None = None, greet: bool = True) -> None:
        super().__init__(instructions="You answer the phone of a bicycle shop.", chat_ctx=chat_ctx or llm.ChatContext())
        self._greet = greet

    async def on_enter(self) -> None:
        self.session.say("Hello, this is the bicycle shop." if self._greet else "You are back at the front desk.")

    @function_tool
    async def to_workshop(self, context: RunContext[Any], bicycle: str) -> Agent:
        """Hand the caller to the workshop, for repairs.

        Args:
            bicycle: Which bicycle it is.
        """
        context.userdata.bicycle = bicycle
        return Workshop(chat_ctx=self.chat_ctx.copy(exclude_instructions=True))


class Workshop(Agent):
    def __init__(self, *, chat_ctx: llm.ChatContext) -> None:
        super().__init__(instructions="You take repairs in the workshop of a bicycle shop.", chat_ctx=chat_ctx)

    async def on_enter(self) -> None:
        self.session.say(f"Workshop here. What is wrong with your {self.session.userdata.bicycle} bicycle?")

    @function_tool
    async def to_front_desk(self, context: RunContext[Any]) -> Agent:
        """Hand the caller back to the front desk."""
        return FrontDesk(chat_ctx=self.chat_ctx.copy(exclude_instructions=True), greet=False)


@server.rtc_session(agent_name="shop")
async def shop(ctx: JobContext) -> None:
    session = AgentSession[Repair](userdata=Repair(), **providers.providers())
    await session.start(agent=FrontDesk(), room=ctx.room)
