"""Tickets: what an agent promised, e.g. a technician's visit or a refund."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.auth import Tenant
from backend.erasure import admit_conversation, admit_user
from backend.errors import NotFound, responses
from backend.feed import take_numbers
from backend.idempotency import ExactlyOnce, MaybeOnce, Written
from backend.models import Ticket
from backend.models.base import now
from backend.paging import Cursor, Limit, Page, only, read_page
from backend.state import Parts
from backend.values import MAX_NUMBER, NO_NUL, Answer, Body, Id, Moment, Object, Word

router = APIRouter(prefix="/v1/tickets", tags=["tickets"])
FIRST: Final = 4711
"""A tenant's first ticket; a caller who is told number 1 wonders."""
TicketNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER)]


class TicketStatus(StrEnum):
    """Whether there is something left to do."""

    OPEN = "open"
    DONE = "done"
    CANCELLED = "cancelled"


class TicketBody(Body):
    """A ticket to open."""

    kind: Word
    """E.g. `technician` or `refund`."""
    subject: Annotated[str, Field(min_length=1, max_length=1000, pattern=NO_NUL)]
    user_id: Id | None = None
    conversation_id: Id | None = None
    details: Object = {}


class TicketChange(Body):
    """What is given is changed."""

    status: TicketStatus | None = None
    details: Object | None = None


class TicketAnswer(Answer):
    """A ticket."""

    number: int
    kind: str
    subject: str
    user_id: str | None
    conversation_id: str | None
    details: Object
    status: TicketStatus
    created_at: Moment
    updated_at: Moment


@router.get("", operation_id="list_tickets", responses=responses())
async def list_tickets(
    parts: Parts,
    tenant: Tenant,
    user_id: Annotated[Id | None, Query()] = None,
    status: TicketStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TicketAnswer]:
    """Tickets by number; of one user or of one status, if asked for."""
    query = only(
        select(Ticket).where(Ticket.tenant == tenant),
        (Ticket.user_id, user_id),
        (Ticket.status, status and status.value),
    )
    async with parts.database.reading() as session:
        return await read_page(session, TicketAnswer, query, [Ticket.number], cursor=cursor, limit=limit)


@router.get("/{number}", operation_id="get_ticket", responses=responses(404))
async def get_ticket(parts: Parts, tenant: Tenant, number: TicketNumber) -> TicketAnswer:
    """One ticket."""
    async with parts.database.reading() as session:
        return TicketAnswer.model_validate(await _ticket(session, tenant, number))


@router.post(
    "", operation_id="open_ticket", status_code=201, response_model=TicketAnswer, responses=responses(409, 410)
)
async def open_ticket(once: ExactlyOnce, tenant: Tenant, body: TicketBody) -> Response:
    """Opens a ticket and gives it the tenant's next number, exactly once."""

    async def write(session: AsyncSession) -> Written:
        await admit_user(session, tenant, body.user_id)
        await admit_conversation(session, tenant, body.conversation_id)
        moment = now()
        row = Ticket(
            tenant=tenant,
            number=await take_numbers(session, tenant, "tickets", first=FIRST),
            status=TicketStatus.OPEN.value,
            created_at=moment,
            updated_at=moment,
            **body.model_dump(),
        )
        session.add(row)
        await session.flush()
        answer = TicketAnswer.model_validate(row)
        return Written(answer=answer, user=body.user_id, conversation=body.conversation_id)

    return await once.perform(write)


@router.patch("/{number}", operation_id="change_ticket", response_model=TicketAnswer, responses=responses(404, 409))
async def change_ticket(once: MaybeOnce, tenant: Tenant, number: TicketNumber, body: TicketChange) -> Response:
    """Changes the status or the details of a ticket."""

    async def write(session: AsyncSession) -> Written:
        row = await _ticket(session, tenant, number, lock=True)
        row.status = body.status.value if body.status is not None else row.status
        row.details = body.details if body.details is not None else row.details
        row.updated_at = now()
        answer = TicketAnswer.model_validate(row)
        return Written(answer=answer, user=row.user_id, conversation=row.conversation_id)

    return await once.perform(write, status=200)


async def _ticket(session: AsyncSession, tenant: str, number: int, *, lock: bool = False) -> Ticket:
    row = await session.get(Ticket, (tenant, number), with_for_update=lock or None)
    if row is None:
        raise NotFound("ticket", str(number))
    return row
