"""Outgoing webhooks: who is told of events, and what could not be delivered."""

from __future__ import annotations

import secrets
import uuid
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.addresses import check_address
from backend.auth import Tenant
from backend.errors import NotFound, responses
from backend.feed import FEED, take_numbers
from backend.idempotency import ExactlyOnce, Written
from backend.models import FailedDelivery, Webhook
from backend.models.base import now
from backend.paging import Cursor, Limit, Page, read_page
from backend.state import Parts
from backend.values import Answer, Body, Id, Moment, Word

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
WebhookId = Annotated[Id, Path()]


class WebhookBody(Body):
    """A receiver."""

    url: Annotated[str, Field(max_length=2000, pattern=r"^https?://[!-~]+$")]
    """https, and a public address, unless the operator allows others."""
    kinds: Annotated[list[Word], Field(max_length=50)] = []
    """Kinds of events to be told of; empty for all."""


class WebhookAnswer(Answer):
    """A receiver, and how far in the feed it is."""

    id: str
    url: str
    kinds: list[str]
    delivered: int
    created_at: Moment


class WebhookCreated(WebhookAnswer):
    """The secret is told once, here."""

    secret: str
    """Deliveries are signed with it, as Standard Webhooks says: headers webhook-id, -timestamp and -signature."""


class FailedAnswer(Answer):
    """An event that was not taken within all tries; it can be read in the feed."""

    sequence: int
    reason: str
    at: Moment


@router.get("", operation_id="list_webhooks", responses=responses())
async def list_webhooks(parts: Parts, tenant: Tenant, cursor: Cursor = None, limit: Limit = 50) -> Page[WebhookAnswer]:
    """The receivers of the tenant."""
    async with parts.database.reading() as session:
        return await read_page(
            session,
            WebhookAnswer,
            select(Webhook).where(Webhook.tenant == tenant),
            [Webhook.id],
            cursor=cursor,
            limit=limit,
        )


@router.post(
    "", operation_id="create_webhook", status_code=201, response_model=WebhookCreated, responses=responses(409)
)
async def create_webhook(once: ExactlyOnce, parts: Parts, tenant: Tenant, body: WebhookBody) -> Response:
    """Tells a receiver of every event from now on: in order, at least once, signed."""
    check_address(body.url, private=parts.settings.webhook_private)

    async def write(session: AsyncSession) -> Written:
        row = Webhook(
            tenant=tenant,
            id=uuid.uuid4().hex,
            url=body.url,
            kinds=body.kinds,
            secret=f"whsec_{secrets.token_hex(24)}",
            # Also waits for whoever appends just now: what is committed later comes later.
            delivered=await take_numbers(session, tenant, FEED, 0) - 1,
            created_at=now(),
        )
        session.add(row)
        await session.flush()
        return Written(answer=WebhookCreated.model_validate(row))

    return await once.perform(write)


@router.get("/{webhook_id}/failures", operation_id="list_failed_deliveries", responses=responses(404))
async def list_failures(
    parts: Parts, tenant: Tenant, webhook_id: WebhookId, cursor: Cursor = None, limit: Limit = 50
) -> Page[FailedAnswer]:
    """The events that the receiver did not take."""
    async with parts.database.reading() as session:
        if await session.get(Webhook, (tenant, webhook_id)) is None:
            raise NotFound("webhook", webhook_id)
        query = select(FailedDelivery).where(FailedDelivery.tenant == tenant, FailedDelivery.webhook_id == webhook_id)
        return await read_page(session, FailedAnswer, query, [FailedDelivery.sequence], cursor=cursor, limit=limit)


@router.delete("/{webhook_id}", operation_id="delete_webhook", status_code=204, responses=responses())
async def delete_webhook(parts: Parts, tenant: Tenant, webhook_id: WebhookId) -> None:
    """The receiver is told nothing more."""
    async with parts.database.writing() as session:
        await session.execute(delete(Webhook).where(Webhook.tenant == tenant, Webhook.id == webhook_id))
