"""A worker of the chaos runs: `python -m tests.chaos.chaos_worker start`. `TEST_MUTANT` names what is broken in it."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from livekit.agents import Agent, JobContext, RunContext, cli, function_tool

from coordination.livekit import CoordinatedServer, CoordinatedSession, handoff_to
from tests.chaos.mutants import MUTANTS, mutate
from tests.chaos.words import WordTTS, reply
from tests.rooms.providers import QUICK_TURNS, RuleLLM, ToneSTT, ToneVAD

ROLE = os.environ.get("TEST_ROLE", "receptionist")
PREPARES_FOR = 0.8
"""Seconds between claim and ready: enough for a fault to strike in them."""

server = CoordinatedServer(host="127.0.0.1", port=0, num_idle_processes=1)


class ChaosAgent(Agent):
    def __init__(self) -> None:
        super().__init__(instructions=f"You are {ROLE}.")

    async def opening(self, handoff: object) -> str | None:
        await asyncio.sleep(PREPARES_FOR)
        return None

    async def on_enter(self) -> None:
        # Three words: the first may be over before a listener on a busy machine has opened the track.
        self.session.say("hello hello hello")

    @function_tool
    async def transfer(self, context: RunContext[Any], role: str) -> str | None:
        """Hands the caller over."""
        return await handoff_to(context, role, summary=f"wants {role}", deadline=timedelta(seconds=4))


@server.rtc_session(agent_name=ROLE)
async def entrypoint(ctx: JobContext) -> None:
    mutate(ctx)
    (Path(os.environ["TEST_FOLDER"]) / f"{ctx.room.name}.{ctx.job.id}").write_text(f"{os.getpid()} {ROLE}")
    session = CoordinatedSession[None](
        ctx,
        stt=ToneSTT(),
        llm=RuleLLM(lambda chat: reply(chat, ROLE)),
        tts=WordTTS(),
        vad=ToneVAD(),
        turn_handling=QUICK_TURNS,
    )
    await session.start(agent=ChaosAgent(), room=ctx.room)


if os.environ.get("TEST_MUTANT"):
    # At import, so that it is broken in the main process and in every job process.
    MUTANTS[os.environ["TEST_MUTANT"]]()

if __name__ == "__main__":
    # The module under its own name: job processes import the entrypoint from there.
    from tests.chaos.chaos_worker import server as worker

    cli.run_app(worker)
