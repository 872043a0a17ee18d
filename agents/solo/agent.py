"""The assistant: one agent in a room, LiveKit's own server and session, and no Redis anywhere.

Two forms, chosen by `BATON_SOLO_FORM`. `livekit`: participants and latest messages stand in the room's metadata, and
messages are saved to the backend as well when one is configured. `hybrid` (the default): begins with what room and
backend know of the caller, keeps the conversation in memory, saves each turn in the background, and the record of the
call at its end.
"""

from __future__ import annotations

import logging
import os

from livekit.agents import Agent, AgentSession, AutoSubscribe, JobContext, JobProcess

from agents.account import Account
from agents.billing.tools import account_balance, explain_invoice, request_refund
from agents.offline.language import domain_language
from agents.providers import providers_for
from agents.solo.call import ROLE, Call
from agents.solo.server import SoloServer
from agents.technical.tools import book_technician, check_line, check_outage
from config import Role, load_settings
from coordination.errors import InvalidSettings

logger = logging.getLogger("agents.solo")

FORM = "BATON_SOLO_FORM"
_CALL = "solo.call"
_PROMPT = os.path.join(os.path.dirname(__file__), "prompt.md")


def prepare(_: JobProcess) -> None:
    """Runs once in each job process, before it takes a call."""
    if load_settings().key("deepgram") is None:
        domain_language()


server = SoloServer(setup_fnc=prepare)


class Assistant(Agent):
    """Answers questions about bills and connections alone."""

    def __init__(self, call: Call, *, greeting: str) -> None:
        with open(_PROMPT, encoding="utf-8") as prompt:
            instructions = prompt.read()
        tools = [explain_invoice, account_balance, request_refund, check_line, check_outage, book_technician]
        super().__init__(instructions=instructions, tools=list(tools), chat_ctx=call.history())
        self._greeting = greeting

    async def on_enter(self) -> None:
        self.session.say(self._greeting)


async def save(ctx: JobContext) -> None:
    """At the end of the session, whoever ended it. The process waits for it, and for nothing else."""
    call = ctx.proc.userdata.pop(_CALL, None)
    if isinstance(call, Call):
        await call.end("the call is over")


@server.rtc_session(agent_name=ROLE, on_session_end=save)
async def solo(ctx: JobContext) -> None:
    """Returns when the session has started: an entrypoint that waited for the end would hold up the job's exit."""
    settings = load_settings()
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)
    call = Call(ctx, board=_form() == "livekit")
    ctx.proc.userdata[_CALL] = call
    await call.begin()
    providers = providers_for(Role.RECEPTIONIST, settings)
    ctx.add_shutdown_callback(providers.aclose)
    session = AgentSession[Account](userdata=call.account, **providers.session_options())
    call.follow(session)
    agent = Assistant(call, greeting=call.greeting(settings.agents.receptionist.greeting))
    await session.start(agent=agent, room=ctx.room)


def _form() -> str:
    form = os.environ.get("BATON_SOLO_FORM") or "hybrid"
    if form not in ("livekit", "hybrid"):
        raise InvalidSettings(f"{FORM}={form!r} is no form of the assistant: set livekit or hybrid.")
    return form
