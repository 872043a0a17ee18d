"""Who asks: the tenant of a request, from its bearer token and from nothing else."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from backend.state import Parts
from backend.tokens import tenant_of

BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token of one tenant: `python -m backend token create TENANT`."
)


async def _tenant(
    parts: Parts, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)] = None
) -> str:
    return await tenant_of(parts.database, credentials.credentials if credentials else "")


Tenant = Annotated[str, Depends(_tenant)]
"""The tenant of the request; every query of a router is bound to it."""
