"""Tokens of further tenants, at a reference backend that runs."""

from __future__ import annotations

from backend.database import Database
from backend.settings import BackendSettings
from backend.tokens import create_token
from coordination.dev.backend import BackendServer


async def token_for(server: BackendServer, tenant: str) -> str:
    """A token of another tenant than the server's own."""
    database = Database(BackendSettings(database_url=server.database_url))
    try:
        _, token = await create_token(database, tenant)
    finally:
        await database.close()
    return token
