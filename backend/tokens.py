"""Tokens: made once and shown once; what is stored can check one, and cannot make one.

A token is `bt_<id>_<secret>`: the id finds the row, the secret is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, update

from backend.database import Database, insert_missing
from backend.errors import InvalidSettings, NotFound, Unauthenticated
from backend.models import Token
from backend.models.base import ID, now

_SHAPE: Final = re.compile(r"bt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY: Final = hashlib.sha256(b"").digest()
_REFUSAL: Final = (
    "The token is missing, unknown, expired or revoked. Send `Authorization: Bearer <token>`; "
    "`python -m backend token create TENANT` makes one."
)


async def create_token(
    database: Database, tenant: str, *, label: str = "", lifetime: timedelta | None = None
) -> tuple[str, str]:
    """Makes a token of the tenant; returns its id and the token itself, which cannot be had again."""
    token_id, secret, moment = secrets.token_hex(8), secrets.token_urlsafe(32), now()
    _check_tenant(tenant)
    async with database.writing() as session:
        session.add(
            Token(
                id=token_id,
                tenant=tenant,
                label=label,
                digest=_digest(secret),
                created_at=moment,
                expires_at=moment + lifetime if lifetime else None,
            )
        )
    return token_id, f"bt_{token_id}_{secret}"


async def admit_token(database: Database, given: str) -> None:
    """Stores a token that was made elsewhere, written `tenant:bt_…`; one that is known stays as it is, also revoked.

    Raises `InvalidSettings` if it is none.
    """
    tenant, _, token = given.rpartition(":")
    shape = _SHAPE.fullmatch(token)
    if shape is None or not tenant:
        raise InvalidSettings(
            "BACKEND_BOOTSTRAP_TOKEN must be written tenant:bt_<16 hex digits>_<43 characters of base64url>."
        )
    _check_tenant(tenant)
    async with database.writing() as session:
        values = {"tenant": tenant, "label": "bootstrap", "digest": _digest(shape[2]), "created_at": now()}
        await insert_missing(session, Token, id=shape[1], **values)


async def revoke_token(database: Database, token_id: str) -> None:
    """The token is refused from the next request on. Raises `NotFound`."""
    async with database.writing() as session:
        revoke = update(Token).where(Token.id == token_id).values(revoked_at=now()).returning(Token.id)
        if (await session.execute(revoke)).one_or_none() is None:
            raise NotFound("token", token_id)


async def list_tokens(database: Database) -> list[Token]:
    """All tokens, without anything that would let somebody in."""
    async with database.reading() as session:
        return list(await session.scalars(select(Token).order_by(Token.tenant, Token.created_at)))


async def tenant_of(database: Database, token: str) -> str:
    """The tenant that the token belongs to. Raises `Unauthenticated`, with one text for all reasons."""
    shape = _SHAPE.fullmatch(token)
    if shape is None:
        raise Unauthenticated(_REFUSAL)
    async with database.reading() as session:
        row = await session.get(Token, shape[1])
    # Compared also where there is no such id, so that the time of an answer does not tell which ids exist.
    matches = hmac.compare_digest(_digest(shape[2]), row.digest if row else _NOBODY)
    if row is None or not matches or not _valid(row, now()):
        raise Unauthenticated(_REFUSAL)
    return row.tenant


def _check_tenant(tenant: str) -> None:
    if not 1 <= len(tenant) <= ID or not tenant.isprintable() or tenant != tenant.strip():
        raise InvalidSettings(f"{tenant!r} cannot name a tenant: choose 1 to {ID} plain characters.")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _valid(row: Token, moment: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or moment < row.expires_at)
