"""What stands between agents and backend, and misbehaves on command: a proxy of HTTP, on a socket of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx
from aiohttp import web

FAULTS: Final = ("500", "429", "garbage", "slow", "lost")
_KEPT: Final = ("authorization", "content-type", "idempotency-key")


@dataclass(slots=True)
class Gateway:
    """`fault` says how it answers now: "" passes everything on. "500", "429" (come back in a second) and "garbage"
    reach nobody; "slow" passes on and answers `delay` seconds later; "lost" passes on, and answers 500 all the same.
    """

    to: str
    fault: str = ""
    delay: float = 10.0
    answered: Counter[str] = field(default_factory=Counter[str])
    """How often it misbehaved, by fault."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.Response:
        fault = self.fault
        if fault:
            self.answered[fault] += 1
        match fault:
            case "500":
                return web.json_response({"detail": "broken"}, status=500)
            case "429":
                return web.Response(status=429, headers={"Retry-After": "1"})
            case "garbage":
                return web.Response(text="<html>Welcome to the proxy</html>", content_type="text/html")
            case _:
                answer = await self._passed_on(request)
        if fault == "slow":
            await asyncio.sleep(self.delay)
        return web.Response(status=500) if fault == "lost" else answer

    async def _passed_on(self, request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() in _KEPT}
        async with httpx.AsyncClient(trust_env=False) as client:
            found = await client.request(
                request.method, f"{self.to}{request.path_qs}", headers=headers, content=await request.read()
            )
        return web.Response(status=found.status_code, body=found.content, headers={"Content-Type": "application/json"})


@asynccontextmanager
async def gateway(to: str) -> AsyncIterator[Gateway]:
    """A gateway to the backend at `to`."""
    between = Gateway(to)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", between.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    between.port = runner.addresses[0][1]
    try:
        yield between
    finally:
        await runner.cleanup()
