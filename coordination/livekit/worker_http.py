"""The worker's own HTTP endpoint: readiness, and the metrics of all its processes.

Liveness stays LiveKit's (`GET /` on its health port) and does not depend on Redis; readiness does. Off unless
`BATON_HTTP_PORT` is set; `BATON_HTTP_HOST` is 127.0.0.1 by default.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from coordination.errors import CoordinationError, InvalidSettings
from coordination.livekit.process import shared_coordinator
from coordination.settings import CoordinatorSettings

if TYPE_CHECKING:
    from prometheus_client import Metric

    from coordination.coordinator import Coordinator
    from coordination.livekit.server import CoordinatedServer

HOST, PORT = "BATON_HTTP_HOST", "BATON_HTTP_PORT"


class WorkerHttp:
    """`GET /ready` and `GET /metrics`."""

    @asynccontextmanager
    async def running(self, server: CoordinatedServer) -> AsyncGenerator[None]:
        port = _port()
        if port is None:
            yield
            return
        async with AsyncExitStack() as held:
            app = web.Application()
            app.add_routes([web.get("/ready", _Readiness(server, held)), web.get("/metrics", _metrics)])
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            held.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, os.environ.get(HOST) or "127.0.0.1", port).start()
            yield

    async def drain(self) -> None:
        """Nothing to do: readiness looks at the worker itself."""


class _Readiness:
    """200 while the worker can take part in a call, else 503 with the reasons."""

    def __init__(self, server: CoordinatedServer, held: AsyncExitStack) -> None:
        self._server, self._held = server, held
        self._opening = asyncio.Lock()
        self._coordinator: Coordinator | None = None

    async def __call__(self, _: web.Request) -> web.Response:
        faults: list[str] = []
        if not self._server.registered:
            faults.append("not registered with LiveKit")
        if self._server.draining:
            faults.append("draining")
        try:
            await self._ask_redis()
        except CoordinationError as fault:
            faults.append(str(fault))
        answer = {"ready": not faults, "worker": self._server.worker_id, "faults": faults}
        return web.json_response(answer, status=503 if faults else 200)

    async def _ask_redis(self) -> None:
        """Over one connection that is opened with the first question and closed with the worker."""
        settings = CoordinatorSettings()
        if settings.coordination == "off":
            return
        async with self._opening:
            if self._coordinator is None:
                opened = shared_coordinator(self._server, settings)
                self._coordinator = await self._held.enter_async_context(opened)
        await self._coordinator.ping()


async def _metrics(_: web.Request) -> web.Response:
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    body = generate_latest(_AllProcesses())  # type: ignore[arg-type]  # anything that collects will do
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _AllProcesses:
    """What the job processes counted, then what this process counts of other things."""

    def collect(self) -> Iterator[Metric]:
        from prometheus_client import REGISTRY, CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        collect: Callable[[], Iterable[Metric]] = MultiProcessCollector(CollectorRegistry()).collect  # pyright: ignore
        jobs = list(collect())
        yield from jobs
        names = {metric.name for metric in jobs}
        yield from (metric for metric in REGISTRY.collect() if metric.name not in names)


def _port() -> int | None:
    text = os.environ.get(PORT, "").strip()
    if not text:
        return None
    if not text.isdigit() or int(text) > 65535:
        raise InvalidSettings(f"{PORT}={text!r} is no port: give a number from 1 to 65535, or unset it.")
    return int(text) or None
