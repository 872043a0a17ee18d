"""What a job process would otherwise do first, when a caller waits: done once, for all of a worker's job processes.

To be imported where they are forked from (`preload_modules`); they inherit the result. Opens no connection and leaves
no thread behind.
"""

from __future__ import annotations

import asyncio

from livekit.agents import tokenize
from livekit.agents.utils import http_context


async def _http() -> None:
    """Reads the bundle of certificates: 30 to 300 ms, in which the event loop of a job would stand still."""
    async with http_context.open():
        pass


asyncio.run(_http())
tokenize.basic.hyphenate_word("baton")
