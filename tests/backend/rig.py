"""A running service and clients of it, and what the tests of the backend share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from backend.settings import BackendSettings
from backend.state import ServiceParts
from backend.tokens import create_token

DIALECTS = ("sqlite", "postgresql")
NewDatabase = Callable[[str], str]
NewRig = Callable[..., Any]
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A running service and clients of it."""

    app: FastAPI
    settings: BackendSettings
    stack: AsyncExitStack
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> ServiceParts:
        return self.app.state.parts

    async def token(self, tenant: str) -> str:
        if tenant not in self.tokens:
            _, self.tokens[tenant] = await create_token(self.parts.database, tenant)
        return self.tokens[tenant]

    async def client(self, tenant: str | None = "acme") -> httpx.AsyncClient:
        """A client with the tenant's token; with None one without any."""
        headers = {} if tenant is None else {"Authorization": f"Bearer {await self.token(tenant)}"}
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=True)
        client = httpx.AsyncClient(transport=transport, base_url="http://backend", headers=headers)
        return await self.stack.enter_async_context(client)


def key(name: str | None = None) -> dict[str, str]:
    """The header of a write: a key of its own, or the one that is given."""
    return {"Idempotency-Key": name or f"key-{next(_numbers)}"}
