"""The agents of the room benchmark: one role per worker (`BENCH_ROLE`), tones for words, no model in the way."""

from __future__ import annotations

import json
import os
from typing import Any

from livekit.agents import Agent, JobContext, RunContext, function_tool, llm

from coordination.livekit import CoordinatedServer, CoordinatedSession, handoff_to
from tests.rooms.providers import Reply, RuleLLM, ToneTTS, last_user_text

ROLES = ("alpha", "bravo")
STORY = "The first part. " + " ".join(["second"] * 20) + ". " + " ".join(["third"] * 20) + ". The end"
"""Six seconds: somebody to be cut off in it, and to be finished by another."""
ROLE = os.environ.get("BENCH_ROLE", ROLES[0])

server = CoordinatedServer(host="127.0.0.1", port=0, num_idle_processes=1)


def rule(chat: llm.ChatContext) -> Reply:
    wish = last_user_text(chat)
    if wish in ROLES and wish != ROLE:
        return Reply(tool="transfer", arguments=json.dumps({"role": wish}))
    return Reply(text=STORY if wish == "story" else f"{ROLE} heard {wish}")


class Desk(Agent):
    def __init__(self) -> None:
        super().__init__(instructions=f"You are {ROLE}.")

    async def on_enter(self) -> None:
        self.session.say(f"hello from {ROLE}")

    @function_tool
    async def transfer(self, context: RunContext[Any], role: str) -> str | None:
        """Hands the caller over."""
        return await handoff_to(
            context, role, summary="benchmark", announce="one moment please", opening="here I am for you"
        )


@server.rtc_session(agent_name=ROLE)
async def entrypoint(ctx: JobContext) -> None:
    session = CoordinatedSession[None](ctx, llm=RuleLLM(rule), tts=ToneTTS(pitch=700.0 + 300.0 * ROLES.index(ROLE)))
    await session.start(agent=Desk(), room=ctx.room)
