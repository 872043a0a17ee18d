"""The development stack for a person: up until Ctrl-C, with the page to talk to the agents.

What `baton dev` and the reference application's `dev` have in common.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import webbrowser
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from coordination.dev.extras import require_aiohttp
from coordination.dev.stack import DevStack
from coordination.dev.web import DevPage

DEFAULT_PAGE_PORT = 8642
"""Nothing well known listens there; a port that stays the same keeps the browser's permission for the microphone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """How the page is served."""

    port: int = DEFAULT_PAGE_PORT
    first: str = ""
    """The role that calls go to; by default that of the first worker."""
    open_browser: bool = False


async def serve(
    stack: DevStack,
    *,
    page: PageOptions | None,
    on_ready: Callable[[DevStack, str | None], None],
) -> None:
    """Starts the stack and keeps it up until SIGINT or SIGTERM; then returns with everything stopped.

    `on_ready` is called once with the stack and the page's address (None without `page`). Raises a `DevError` when a
    part cannot be started or ends by itself.
    """
    async with stopping_on_signals() as stop:
        work = asyncio.create_task(_serve(stack, page, on_ready), name="development stack")
        asked = asyncio.create_task(stop.wait(), name="wait for a signal")
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work


async def _serve(stack: DevStack, page: PageOptions | None, on_ready: Callable[[DevStack, str | None], None]) -> None:
    if page is not None:
        require_aiohttp()
    async with contextlib.AsyncExitStack() as parts:
        await parts.enter_async_context(stack)
        address: str | None = None
        if page is not None:
            roles = [worker.role for worker in stack.workers]
            first = page.first or next(iter(roles), "")
            server = DevPage(stack.livekit, role=first, roles=roles, port=page.port)
            address = (await parts.enter_async_context(server)).url
        on_ready(stack, address)
        if page is not None and page.open_browser and address is not None:
            await asyncio.to_thread(webbrowser.open, address)
        await stack.run()


@contextlib.asynccontextmanager
async def stopping_on_signals() -> AsyncGenerator[asyncio.Event]:
    """An event that is set by SIGINT or SIGTERM within the block. A second signal ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def ask() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # the next one is Python's own: it ends the process

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
