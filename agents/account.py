"""The caller's account, as the tools see it: in the backend where one is configured, else a made-up one.

Every read and write is bounded, and none is on the way of what is being said. A backend that does not answer, or a
caller whom it does not know, is an `AccountUnknown`: the agent says so, and makes nothing up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from livekit.agents import JobContext, RunContext, ToolError

from coordination.livekit.envelope import MetadataError
from coordination.livekit.job_call import CallOf
from coordination.livekit.record import SessionRecord
from coordination.persistence import (
    BackendClient,
    BackendError,
    Invoice,
    InvoiceItem,
    PersistenceSettings,
    Ticket,
    UserContext,
)
from coordination.settings import CoordinatorSettings

logger = logging.getLogger("agents")

GREETED_WITHIN: Final = timedelta(seconds=0.3)
"""How long a greeting waits for the caller's name."""
FIRST_TICKET: Final = 4711
_PLAN = InvoiceItem(text="your plan with 250 megabits", cents=3990)
_ROUTER = InvoiceItem(text="the new router that was sent to you on the third", cents=2500)
MADE_UP: Final = (
    Invoice(id="2026-11", issued_on="2026-11-01", due_on="2026-12-15", items=(_PLAN, _ROUTER)),
    Invoice(id="2026-10", issued_on="2026-10-01", due_on="2026-11-15", items=(_PLAN,), status="paid"),
)
"""Of every caller, without a backend. The newest first, as the backend has them."""


class AccountUnknown(ToolError):
    """The account cannot be looked up or written to now; the text is for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """Whose call it is."""

    user: str | None = None
    conversation: str | None = None


class Account:
    """One call's; it is the session's `userdata`. Without a backend, tickets live as long as the call's process."""

    def __init__(self, backend: BackendClient | None = None, *, whose: Whose | None = None) -> None:
        self._backend, self._whose = backend, whose or Whose()
        self._made_up: list[Ticket] = []
        self._asking: asyncio.Task[UserContext | None] | None = None

    @classmethod
    async def of(cls, ctx: JobContext) -> Account:
        """The account of the call that a job was dispatched to; connects to the room. The caller's name is asked for
        in the background. Raises `MetadataError` if the call's tenant cannot be read."""
        await ctx.connect()
        settings = PersistenceSettings()
        if not settings.backend_url:
            return cls()
        tenant = CallOf.read(ctx.job, tenant=CoordinatorSettings().tenant).tenant
        account = cls(BackendClient(settings, tenant=tenant), whose=await _whose(ctx))
        account._asking = asyncio.create_task(account._context(), name="agents: ask who the caller is")
        ctx.add_shutdown_callback(account.close)
        return account

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._backend is not None:
            await self._backend.close()

    async def greeting(self, usual: str) -> str:
        """The usual one, with the name of a caller who is known by the time that they are greeted."""
        if self._asking is None:
            return usual
        await asyncio.wait([self._asking], timeout=GREETED_WITHIN.total_seconds())
        known = self._asking.result() if self._asking.done() else None
        return f"Hello {known.user.name}. {usual}" if known is not None and known.user.name else usual

    async def invoices(self) -> Sequence[Invoice]:
        """The newest first; at least one. Raises `AccountUnknown`."""
        if self._backend is None:
            return MADE_UP
        invoices = (await self._known()).invoices
        if not invoices:
            raise AccountUnknown("There is no invoice on your account.")
        return invoices

    async def tickets(self, kind: str) -> Sequence[Ticket]:
        """The open ones of a kind, the newest first. Raises `AccountUnknown`."""
        found = tuple(reversed(self._made_up)) if self._backend is None else (await self._known()).open_tickets
        return [ticket for ticket in found if ticket.kind == kind]

    async def open_ticket(self, context: RunContext[Any], kind: str, subject: str, **details: str) -> Ticket:
        """Opens a ticket, once for each call of a tool. Raises `AccountUnknown`: then there may be none."""
        if self._backend is None:
            number = FIRST_TICKET + len(self._made_up)
            self._made_up.append(Ticket(number=number, kind=kind, subject=subject, details=details))
            return self._made_up[-1]
        whose = self._whose
        try:
            return await self._backend.open_ticket(
                kind,
                subject,
                user_id=whose.user,
                conversation_id=whose.conversation,
                details=details,
                key=f"ticket.{whose.conversation}.{context.function_call.call_id}",
            )
        except BackendError as fault:
            logger.warning("a ticket was not opened: %s", fault)
            raise AccountUnknown("I can not note that right now. Please try again in a few minutes.") from fault

    async def _known(self) -> UserContext:
        known = await self._context()
        if known is None:
            raise AccountUnknown("I can not look into your account right now.")
        return known

    async def _context(self) -> UserContext | None:
        if self._backend is None or self._whose.user is None:
            return None
        try:
            return await self._backend.get_user_context(self._whose.user)
        except BackendError as fault:
            logger.warning("the account could not be looked up: %s", fault)
            return None


async def _whose(ctx: JobContext) -> Whose:
    """By the room's session record, which only a server writes."""
    try:
        record = SessionRecord.parse(ctx.room.metadata, room=ctx.room.name)
    except MetadataError as fault:
        logger.warning("nobody says whose call it is: %s", fault)
        record = None
    known = record or SessionRecord()
    return Whose(user=known.user, conversation=known.conversation or known.session or await ctx.room.sid)


def account_of(context: RunContext[Any]) -> Account:
    """The account of the call in which a tool is called; a session without one has a made-up one."""
    try:
        account: object = context.userdata
    except ValueError:
        account = None
    if not isinstance(account, Account):
        account = context.session.userdata = Account()
    return account


def month_of(invoice: Invoice) -> str:
    """The month that an invoice is of: "November"."""
    return date.fromisoformat(invoice.issued_on).strftime("%B")


def day_of(iso: str) -> str:
    """A day as it is spoken: "15 December"."""
    day = date.fromisoformat(iso)
    return f"{day.day} {day.strftime('%B')}"
