"""Delivering events to webhooks: in order, at least once, signed, each with a bounded number of tries.

A webhook is a follower of the feed: all that is stored is how far it is. One process at a time delivers to it, by a
claim that runs out, so a process that dies in the middle leaves nothing undelivered. A receiver that does not answer
delays its own events, never those of others.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx
from sqlalchemy import func, or_, select, update
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from backend.addresses import Forbidden, resolve
from backend.api.events import EventAnswer
from backend.database import insert_missing
from backend.feed import FEED
from backend.models import Counter, Event, FailedDelivery, Webhook
from backend.models.base import now
from backend.state import ServiceParts
from backend.stopping import Stopped

LOOK_EVERY: Final = 2.0
"""Seconds between looks for events that another process appended."""
CLAIM: Final = timedelta(minutes=2)
_AT_ONCE: Final = 20
_BATCH: Final = 50

log = logging.getLogger("backend.delivery")


class NotTaken(Exception):
    """The receiver did not answer, or not with a status of 2xx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A webhook that this process has claimed."""

    tenant: str
    id: str
    url: str
    secret: str
    kinds: Sequence[str]
    delivered: int


async def deliver_forever(parts: ServiceParts) -> None:
    """Until the service ends. A fault of the database is waited out."""
    async with httpx.AsyncClient(timeout=parts.settings.webhook_timeout, trust_env=False) as client:
        while not parts.stopping:
            try:
                more = await deliver_once(parts, client)
            except Exception:
                log.warning("deliveries wait: the database does not answer as it should", exc_info=True)
                more = False
            if not more:
                await _wait(parts)


async def deliver_once(parts: ServiceParts, client: httpx.AsyncClient) -> bool:
    """One look at all webhooks that are behind; tells whether anything was delivered."""
    receivers = await _claim(parts)
    results = await asyncio.gather(*(_serve(parts, client, receiver) for receiver in receivers))
    return any(results)


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` of Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


async def _wait(parts: ServiceParts) -> None:
    with contextlib.suppress(TimeoutError, Stopped):
        await parts.stopping.unless(asyncio.wait_for(parts.appended.wait(), LOOK_EVERY))
    parts.appended.clear()


async def _claim(parts: ServiceParts) -> list[Receiver]:
    """Webhooks that are behind and that no other process serves; ours until `CLAIM` is over."""
    moment = now()
    newest = (
        select(func.max(Counter.value))
        .where(Counter.tenant == Webhook.tenant, Counter.name == FEED)
        .correlate(Webhook)
        .scalar_subquery()
    )
    free = (
        Webhook.delivered < newest,
        or_(Webhook.claimed_until.is_(None), Webhook.claimed_until < moment),
    )
    async with parts.database.reading() as session:
        found = (await session.execute(select(Webhook.tenant, Webhook.id).where(*free).limit(_AT_ONCE))).all()
    claimed: list[Receiver] = []
    for tenant, webhook_id in found:
        async with parts.database.writing() as session:
            row = await session.scalar(
                update(Webhook)
                .where(Webhook.tenant == tenant, Webhook.id == webhook_id, *free)
                .values(claimed_until=moment + CLAIM)
                .returning(Webhook)
            )
            if row is not None:
                claimed.append(
                    Receiver(
                        tenant=row.tenant,
                        id=row.id,
                        url=row.url,
                        secret=row.secret,
                        kinds=tuple(row.kinds),
                        delivered=row.delivered,
                    )
                )
    return claimed


async def _serve(parts: ServiceParts, client: httpx.AsyncClient, receiver: Receiver) -> bool:
    """Delivers a batch. Its place in the feed is stored after each event: after a crash at most one comes twice."""
    async with parts.database.reading() as session:
        rows = await session.scalars(
            select(Event)
            .where(Event.tenant == receiver.tenant, Event.sequence > receiver.delivered)
            .order_by(Event.sequence)
            .limit(_BATCH)
        )
        events = [EventAnswer.model_validate(row) for row in rows]
        newest = await session.scalar(
            select(Counter.value).where(Counter.tenant == receiver.tenant, Counter.name == FEED)
        )
    deadline = now() + CLAIM / 2
    with contextlib.suppress(Stopped):
        for event in events:
            if now() > deadline:
                break  # the claim would run out: the next look goes on from here
            if not receiver.kinds or event.kind in receiver.kinds:
                failure = await parts.stopping.unless(_deliver(parts, client, receiver, event))
                parts.metrics.deliveries.labels("failed" if failure else "delivered").inc()
            else:
                failure = None
            await _advance(parts, receiver, event.sequence, failure)
    if not events and newest is not None:
        await _advance(parts, receiver, newest, None)  # numbers that no event has
    await _let_go(parts, receiver)
    return bool(events)


async def _deliver(
    parts: ServiceParts, client: httpx.AsyncClient, receiver: Receiver, event: EventAnswer
) -> str | None:
    """Tries until the receiver takes it; the reason if it never does."""
    body = event.model_dump_json().encode()
    tries = AsyncRetrying(
        stop=stop_after_attempt(parts.settings.webhook_attempts),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        retry=retry_if_exception_type(NotTaken),
    )
    try:
        await tries(_send, client, receiver, event, body, parts.settings.webhook_private)
    except RetryError as error:
        return str(error.last_attempt.exception())
    except Forbidden as error:
        return str(error)
    return None


async def _send(client: httpx.AsyncClient, receiver: Receiver, event: EventAnswer, body: bytes, private: bool) -> None:
    try:
        to = await resolve(receiver.url, private=private)
        message_id, timestamp = f"{receiver.id}-{event.sequence}", int(datetime.now(UTC).timestamp())
        headers = {
            "host": to.host,
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(receiver.secret, message_id, timestamp, body),
        }
        request = client.build_request(
            "POST", to.url, content=body, headers=headers, extensions={"sni_hostname": to.name}
        )
        # The answer's body is nobody's concern, and may be endless.
        response = await client.send(request, stream=True, follow_redirects=False)
        await response.aclose()
    except (httpx.HTTPError, OSError) as error:
        raise NotTaken(f"no answer ({type(error).__name__})") from error
    if not response.is_success:
        raise NotTaken(f"status {response.status_code}")


async def _advance(parts: ServiceParts, receiver: Receiver, sequence: int, failure: str | None) -> None:
    async with parts.database.writing() as session:
        there = await session.scalar(
            update(Webhook)
            .where(Webhook.tenant == receiver.tenant, Webhook.id == receiver.id)
            .values(delivered=sequence)
            .returning(Webhook.id)
        )
        if there is not None and failure is not None:
            await insert_missing(
                session,
                FailedDelivery,
                tenant=receiver.tenant,
                webhook_id=receiver.id,
                sequence=sequence,
                reason=failure,
                at=now(),
            )


async def _let_go(parts: ServiceParts, receiver: Receiver) -> None:
    async with parts.database.writing() as session:
        await session.execute(
            update(Webhook)
            .where(Webhook.tenant == receiver.tenant, Webhook.id == receiver.id)
            .values(claimed_until=None)
        )
