"""What a running service is made of, and how a request gets at it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from backend.database import Database
from backend.media import MediaServer
from backend.metrics import Metrics
from backend.settings import BackendSettings
from backend.stopping import Stopping


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """Made with the application, closed with it."""

    settings: BackendSettings
    database: Database
    media: MediaServer
    metrics: Metrics
    stopping: Stopping = field(default_factory=Stopping)
    appended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this process appended to the feed: its webhooks need not wait for their next look."""


async def _parts(request: Request) -> ServiceParts:
    return cast(ServiceParts, request.app.state.parts)


Parts = Annotated[ServiceParts, Depends(_parts)]
