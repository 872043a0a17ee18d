"""Billing: invoices, balances, refunds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from livekit.agents import JobContext

from agents.account import Account
from agents.billing.tools import TOOLS
from agents.budgets import within_limits
from agents.desk import DeskAgent, ask_whether_there, make_server
from agents.providers import providers_for
from config import Role, load_settings
from coordination.livekit import CoordinatedSession

server = make_server(Role.BILLING)


class Billing(DeskAgent):
    """Explains what is charged, and asks for refunds."""

    role = Role.BILLING
    openings: ClassVar[Mapping[str, str]] = {
        "invoice": "This is billing. I hear that it is about your invoice. Shall I go through it with you?",
        "balance": "This is billing. I have your account in front of me. Shall I tell you your balance?",
        "refund": "This is billing. I hear that you were charged too much. Shall I ask for a refund?",
        "question": "This is billing. My colleague told me why you are calling. What would you like to know?",
    }


@server.rtc_session(agent_name=Role.BILLING.value)
async def billing(ctx: JobContext) -> None:
    settings = load_settings()
    account = await Account.of(ctx)
    providers = await within_limits(ctx, providers_for(Role.BILLING, settings), settings)
    ctx.add_shutdown_callback(providers.aclose)
    session = CoordinatedSession[Account](ctx, userdata=account, **providers.session_options())
    agent = Billing(tools=list(TOOLS), greeting=settings.agents.billing.greeting)
    ask_whether_there(session)
    await session.start(agent=agent, room=ctx.room)
