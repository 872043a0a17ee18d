"""The reception: takes the call, finds out what it is about, and hands over to who can help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from livekit.agents import JobContext

from agents.account import Account
from agents.budgets import within_limits
from agents.desk import DeskAgent, ask_whether_there, make_server
from agents.providers import providers_for
from agents.receptionist.tools import TOOLS
from config import Role, load_settings
from coordination.livekit import CoordinatedSession

server = make_server(Role.RECEPTIONIST)


class Receptionist(DeskAgent):
    """Knows nobody's account: it connects."""

    role = Role.RECEPTIONIST
    openings: ClassVar[Mapping[str, str]] = {
        "technician": "You are back at the reception; your appointment is noted. Is there anything else that I can do?",
        "question": "You are back at the reception. Is there anything else that I can do?",
    }


@server.rtc_session(agent_name=Role.RECEPTIONIST.value)
async def receptionist(ctx: JobContext) -> None:
    settings = load_settings()
    account = await Account.of(ctx)
    providers = await within_limits(ctx, providers_for(Role.RECEPTIONIST, settings), settings)
    ctx.add_shutdown_callback(providers.aclose)
    session = CoordinatedSession[Account](ctx, userdata=account, **providers.session_options())
    agent = Receptionist(tools=list(TOOLS), greeting=settings.agents.receptionist.greeting)
    ask_whether_there(session)
    await session.start(agent=agent, room=ctx.room)
