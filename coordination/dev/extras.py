"""Packages that only some of the library needs: asked for where they are used, by the name of their extra."""

from __future__ import annotations

import importlib.util

from coordination.dev.errors import ComponentMissing


def installed(module: str) -> bool:
    """Whether the module can be imported; looks for it without importing more than the packages around it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require(module: str, *, package: str, extra: str) -> None:
    """Raises `ComponentMissing`, naming the extra, if the module is not installed."""
    if not installed(module):
        raise ComponentMissing(package, f"Install it: pip install 'livekit-baton[{extra}]'")


def require_livekit() -> None:
    """For whatever asks LiveKit or runs agents."""
    require("livekit.agents", package="livekit-agents", extra="livekit")
    require("livekit.api", package="livekit-api", extra="livekit")


def require_aiohttp() -> None:
    """For the page."""
    require("aiohttp", package="aiohttp", extra="dev")
