"""What the emulators have in common: a server on loopback, its judge, its faults, its errors."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import timedelta
from types import TracebackType
from typing import ClassVar, Self
from weakref import WeakSet

from aiohttp import WSCloseCode, web

from coordination.dev.ports import LOOPBACK
from coordination.testing.emulators.faults import Fault, FaultPlan
from coordination.testing.emulators.judge import Judge, Quota

_SHUTDOWN = 0.5
"""Seconds that open requests get at the end; a client that hangs does not hold the emulator up."""


class Emulator:
    """One provider on a free port of 127.0.0.1, while it is open as a context manager.

    `judge` knows what was used and refused. `latency` goes by before the first piece of an answer, `pace` between
    pieces. Any API key is accepted; an empty one is refused, as the provider would.
    """

    path: ClassVar[str]
    """What comes behind the address in the plugin's base URL."""

    def __init__(
        self,
        *,
        quota: Quota | None = None,
        latency: timedelta = timedelta(0),
        pace: timedelta = timedelta(0),
        port: int = 0,
    ) -> None:
        self.judge = Judge(quota or Quota())
        self.latency, self.pace = latency, pace
        self._faults = FaultPlan()
        self._port = port
        self._runner: web.AppRunner | None = None
        self._sockets: WeakSet[web.WebSocketResponse] = WeakSet()

    @property
    def base_url(self) -> str:
        """As the plugin takes it."""
        return f"http://{LOOPBACK}:{self._port}{self.path}"

    def fail(self, fault: Fault, *, times: int = 1) -> None:
        """The next requests meet this fault, one each, after those that were planned before."""
        self._faults.add(fault, times=times)

    async def start(self) -> Self:
        """Serves from here on; `async with` does it too."""
        app = web.Application()
        app.add_routes(self._routes())
        app.on_shutdown.append(self._hang_up)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self._port).start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- for the emulators ------------------------------------------------------------------------

    def _routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    def _error_body(self, status: int, code: str, message: str) -> object:
        """An error in the provider's own words."""
        raise NotImplementedError

    def _error(
        self, status: int, code: str, message: str, *, retry_after: timedelta | None = None, **headers: str
    ) -> web.Response:
        if retry_after is not None:
            headers["Retry-After"] = str(math.ceil(retry_after.total_seconds()))
            headers["retry-after-ms"] = str(math.ceil(retry_after.total_seconds() * 1000))
        body = json.dumps(self._error_body(status, code, message))
        return web.Response(status=status, text=body, content_type="application/json", headers=headers)

    def _planned_error(self, fault: Fault) -> web.Response:
        code = "rate_limit_exceeded" if fault.code == 429 else "server_error"
        return self._error(fault.code, code, "This fault was planned.", retry_after=fault.retry_after)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        return socket

    async def pause(self, duration: timedelta) -> None:
        if duration > timedelta(0):
            await asyncio.sleep(duration.total_seconds())

    async def _hang_up(self, _: web.Application) -> None:
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)


def break_off(request: web.Request) -> None:
    """Ends the connection as a crash would: no last chunk, no closing handshake."""
    if request.transport is not None:
        request.transport.abort()
