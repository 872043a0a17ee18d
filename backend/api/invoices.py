"""Invoices, for the reference application's billing agent; a billing system would write them."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.auth import Tenant
from backend.database import insert_missing
from backend.erasure import admit_user
from backend.errors import Conflict, NotFound, responses
from backend.idempotency import MaybeOnce, Written
from backend.models import Invoice
from backend.models.base import now
from backend.paging import Cursor, Limit, Page, only, read_page
from backend.state import Parts
from backend.values import MAX_NUMBER, Answer, Body, Day, Id, Moment, Name

router = APIRouter(prefix="/v1/invoices", tags=["invoices"])
InvoiceId = Annotated[Id, Path(description="The number on the invoice.")]


class InvoiceStatus(StrEnum):
    """Where it stands."""

    OPEN = "open"
    PAID = "paid"
    CANCELLED = "cancelled"


class InvoiceItem(Body):
    """One line; the amount in cents, negative for a credit."""

    text: Name
    cents: Annotated[int, Field(strict=True, ge=-MAX_NUMBER, le=MAX_NUMBER)]


class InvoiceBody(Body):
    """An invoice as a whole."""

    user_id: Id
    issued_on: Day
    due_on: Day
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "EUR"
    items: Annotated[list[InvoiceItem], Field(min_length=1, max_length=200)]
    status: InvoiceStatus = InvoiceStatus.OPEN


class InvoiceAnswer(Answer):
    """An invoice."""

    id: str
    user_id: str
    issued_on: date
    due_on: date
    currency: str
    items: list[InvoiceItem]
    status: InvoiceStatus
    updated_at: Moment


@router.get("", operation_id="list_invoices", responses=responses())
async def list_invoices(
    parts: Parts,
    tenant: Tenant,
    user_id: Annotated[Id | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[InvoiceAnswer]:
    """Invoices by number; of one user, if asked for."""
    query = only(select(Invoice).where(Invoice.tenant == tenant), (Invoice.user_id, user_id))
    async with parts.database.reading() as session:
        return await read_page(session, InvoiceAnswer, query, [Invoice.id], cursor=cursor, limit=limit)


@router.get("/{invoice_id}", operation_id="get_invoice", responses=responses(404))
async def get_invoice(parts: Parts, tenant: Tenant, invoice_id: InvoiceId) -> InvoiceAnswer:
    """One invoice."""
    async with parts.database.reading() as session:
        row = await session.get(Invoice, (tenant, invoice_id))
        if row is None:
            raise NotFound("invoice", invoice_id)
        return InvoiceAnswer.model_validate(row)


@router.put("/{invoice_id}", operation_id="put_invoice", response_model=InvoiceAnswer, responses=responses(409, 410))
async def put_invoice(once: MaybeOnce, tenant: Tenant, invoice_id: InvoiceId, body: InvoiceBody) -> Response:
    """Creates the invoice, or replaces it. An invoice does not change its user."""
    values = body.model_dump(mode="python") | {"status": body.status.value, "updated_at": now()}

    async def write(session: AsyncSession) -> Written:
        await admit_user(session, tenant, body.user_id)
        await insert_missing(session, Invoice, tenant=tenant, id=invoice_id, **values)
        row = await session.get_one(Invoice, (tenant, invoice_id), with_for_update=True)
        if row.user_id != body.user_id:
            raise Conflict(f"The invoice {invoice_id!r} belongs to another user: nothing was written.")
        for name, value in values.items():
            setattr(row, name, value)
        return Written(answer=InvoiceAnswer.model_validate(row), user=body.user_id)

    return await once.perform(write, status=200)
