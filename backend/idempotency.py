"""Exactly once: a write with an Idempotency-Key happens once, however often the request arrives.

Invariant: the key is stored in the transaction that does the work. Two requests with one key at the same time meet at
the key's row: the second waits for the first, and then gets its answer; if the first fails, the second does the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from fastapi.responses import Response
from pydantic import BaseModel
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.auth import Tenant
from backend.database import insert_missing
from backend.errors import KeyReused
from backend.models import IdempotencyKey
from backend.models.base import now
from backend.state import Parts, ServiceParts

REPLAYED: Final = "Idempotent-Replayed"
_HEADER: Final = Header(
    alias="Idempotency-Key",
    min_length=1,
    max_length=255,
    pattern=r"^[!-~]+$",
    description="A key of the caller's choice, one for each request. The same request again gets the same answer and "
    "writes nothing; another request with the key is refused with status 409.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a write answers, and whose data that is."""

    answer: BaseModel
    user: str | None = None
    conversation: str | None = None

    @property
    def subject(self) -> str | None:
        if self.user is not None:
            return f"user:{self.user}"
        return f"conversation:{self.conversation}" if self.conversation is not None else None


Write = Callable[[AsyncSession], Awaitable[Written]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """One request, as far as exactly-once is concerned."""

    parts: ServiceParts
    tenant: str
    key: str | None
    request: bytes

    async def perform(self, write: Write, *, status: int = 201) -> Response:
        """Runs `write` in a transaction, or gives the answer that it gave before. Raises `KeyReused`."""
        async with self.parts.database.writing() as session:
            if self.key is not None and not await self._claim(session, self.key, status):
                return await self._replay(session, self.key)
            written = await write(session)
            answer = written.answer.model_dump_json()
            if self.key is not None:
                await session.execute(
                    update(IdempotencyKey)
                    .where(IdempotencyKey.tenant == self.tenant, IdempotencyKey.key == self.key)
                    .values(answer=answer, subject=written.subject)
                )
        return _response(answer, status)

    async def _claim(self, session: AsyncSession, key: str, status: int) -> bool:
        return await insert_missing(
            session,
            IdempotencyKey,
            tenant=self.tenant,
            key=key,
            request=self.request,
            status=status,
            answer="",
            at=now(),
        )

    async def _replay(self, session: AsyncSession, key: str) -> Response:
        first = await session.get_one(IdempotencyKey, (self.tenant, key))
        if first.request != self.request:
            raise KeyReused
        self.parts.metrics.replays.inc()
        response = _response(first.answer, first.status)
        response.headers[REPLAYED] = "true"
        return response


async def _fingerprint(request: Request) -> bytes:
    """Of method, path and body; two spellings of the same JSON are the same body."""
    body = await request.body()
    try:
        canonical = json.dumps(json.loads(body), sort_keys=True) if body else ""
    except ValueError:
        canonical = body.decode("utf-8", "replace")  # will be refused as invalid anyway
    parts = (request.method, request.url.path, request.url.query, canonical)
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).digest()


async def _required(request: Request, parts: Parts, tenant: Tenant, key: Annotated[str, _HEADER]) -> Once:
    return Once(parts=parts, tenant=tenant, key=key, request=await _fingerprint(request))


async def _possible(request: Request, parts: Parts, tenant: Tenant, key: Annotated[str | None, _HEADER] = None) -> Once:
    return Once(parts=parts, tenant=tenant, key=key, request=await _fingerprint(request))


ExactlyOnce = Annotated[Once, Depends(_required)]
"""For requests that add something: the key is required, for without it a repetition would add it twice."""
MaybeOnce = Annotated[Once, Depends(_possible)]
"""For requests that may be repeated anyway (PUT, PATCH, DELETE): a key also keeps a late repetition from undoing a
later change."""


def _response(answer: str, status: int) -> Response:
    return Response(answer, status_code=status, media_type="application/json")
