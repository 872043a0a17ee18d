"""Technical support: lines, routers, outages, technicians."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from livekit.agents import JobContext

from agents.account import Account
from agents.budgets import within_limits
from agents.desk import DeskAgent, ask_whether_there, make_server
from agents.providers import providers_for
from agents.technical.tools import TOOLS
from config import Role, load_settings
from coordination.livekit import CoordinatedSession

server = make_server(Role.TECHNICAL)


class Technical(DeskAgent):
    """Measures lines and sends technicians."""

    role = Role.TECHNICAL
    openings: ClassVar[Mapping[str, str]] = {
        "line": "This is technical support. I hear that your connection makes trouble. Shall I check your line?",
        "outage": "This is technical support. I know of no outage in your area. Shall I check your line?",
        "technician": "This is technical support. I hear that you need a technician. When would it suit you?",
        "question": "This is technical support. My colleague told me why you are calling. Shall I check your line?",
    }


@server.rtc_session(agent_name=Role.TECHNICAL.value)
async def technical(ctx: JobContext) -> None:
    settings = load_settings()
    account = await Account.of(ctx)
    providers = await within_limits(ctx, providers_for(Role.TECHNICAL, settings), settings)
    ctx.add_shutdown_callback(providers.aclose)
    session = CoordinatedSession[Account](ctx, userdata=account, **providers.session_options())
    agent = Technical(tools=list(TOOLS), greeting=settings.agents.technical.greeting)
    ask_whether_there(session)
    await session.start(agent=agent, room=ctx.room)
