"""Ending what runs in the background between two steps, never in the middle of one.

A task that is cancelled while the database works for it leaves a connection in an odd state, and a thread of SQLite's
driver that answers to a loop that is gone. So background tasks are not cancelled: they are asked, and look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """The service ends: what was waited for is given up."""


class Stopping:
    """Whether the service ends. Waits that can take long pass through here."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def begin(self) -> None:
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    async def unless(self, waiting: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; it is cancelled, and `Stopped` raised, when the service ends before it does."""
        work, end = asyncio.ensure_future(waiting), asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait((work, end), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise Stopped
        finally:
            for future in (work, end):
                future.cancel()
            await asyncio.gather(work, end, return_exceptions=True)
