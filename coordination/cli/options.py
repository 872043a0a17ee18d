"""Options that several commands share, and the servers they name."""

from __future__ import annotations

from typing import Annotated

import typer

from coordination.cli.output import NotConfigured
from coordination.dev.livekit_server import ExternalLiveKit, livekit_from_environment

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RedisUrl = Annotated[
    str | None, typer.Option("--redis-url", envvar="BATON_REDIS_URL", help="Redis or Valkey, e.g. redis://localhost.")
]
TenantName = Annotated[
    str | None, typer.Option("--tenant", help="The room's tenant; by default what its session record says.")
]
RoomArgument = Annotated[str, typer.Argument(help="The room's name in LiveKit, or its SID.", show_default=False)]


def livekit() -> ExternalLiveKit:
    """The LiveKit server that the environment names. Raises `NotConfigured` without one."""
    if (server := livekit_from_environment()) is None:
        raise NotConfigured(
            "LIVEKIT_URL is not set, so there is no LiveKit to ask: set LIVEKIT_URL, LIVEKIT_API_KEY and "
            "LIVEKIT_API_SECRET (`baton dev` prints them for its own)."
        )
    return server


def redis(url: str | None) -> str:
    """The URL of Redis. Raises `NotConfigured` without one."""
    if not url:
        raise NotConfigured(
            "No Redis is configured: set BATON_REDIS_URL, or use --redis-url (`baton dev` prints its own)."
        )
    return url
