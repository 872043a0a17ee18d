"""A stand-in for the backend that misbehaves on command: what it saved exactly once is what a test compares with.

It speaks the part of the API that the client uses, on a real socket. Whether the reference backend speaks the same is
for the tests that run against that one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "bt_0123456789abcdef_token"


@dataclass(slots=True)
class Service:
    """`fault` says how it answers now: "", "500", "429", "garbage", "hang", "lost" (does it, and loses the answer),
    "slow" (does it, and answers `delay` seconds later)."""

    port: int = 0
    fault: str = ""
    poison: str = ""
    """Turns with this text are refused with 422, whatever else is sent."""
    retry_after: str = ""
    delay: float = 0.0
    requests: list[tuple[str, str, Any]] = field(default_factory=list[tuple[str, str, Any]])
    saved: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    """By conversation, in order of arrival, each key once."""
    keys: dict[str, Any] = field(default_factory=dict[str, Any])
    erased: set[str] = field(default_factory=set[str])
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def texts(self, conversation: str) -> list[str]:
        return [message["text"] for body in self.saved.get(conversation, []) for message in body["messages"]]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Goes away; `start` comes back on the same port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.path, body))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"detail": "who?"}, status=401)
        match self.fault:
            case "500":
                return web.json_response({"detail": "broken"}, status=500)
            case "429":
                return web.Response(status=429, headers={"Retry-After": self.retry_after} if self.retry_after else {})
            case "garbage":
                return web.Response(text="<html>Welcome to the proxy</html>", content_type="text/html")
            case "wrong json":
                return web.json_response(["not", "an", "object"])
            case "hang":
                await asyncio.sleep(60)
        if request.method in ("POST", "PUT"):
            answer = self._save(request, body)
            if self.fault == "slow":
                await asyncio.sleep(self.delay)
            if self.fault == "lost":
                assert request.transport is not None
                request.transport.abort()
            return answer
        return self._read(request)

    def _save(self, request: web.Request, body: Any) -> web.StreamResponse:
        if request.path == "/v1/events":
            return web.json_response({"appended": len(body["events"]), "known": 0, "erased": 0})
        parts = request.path.split("/")
        conversation = parts[3] if parts[2] == "conversations" else body.get("conversation_id") or parts[3]
        if conversation in self.erased:
            return web.json_response({"detail": "erased"}, status=410)
        if self.poison and self.poison in json.dumps(body):
            return web.json_response({"detail": "text: it is poison"}, status=422)
        key = request.headers["Idempotency-Key"]
        if key not in self.keys:
            self.keys[key] = body
            self.saved.setdefault(conversation, []).append(body)
        return web.json_response({"conversation_id": conversation}, status=201)

    def _read(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/users/ann/context":
            return web.json_response({"user": {"id": "ann", "name": "Ann", "later": 1}, "conversations": 2})
        if request.path == "/v1/users/odd/context":
            return web.json_response({"user": "odd"})
        if request.path == "/v1/messages/recent":
            return web.json_response({"conversation_id": request.query.get("conversation_id"), "messages": []})
        if request.method == "PATCH":
            return web.json_response({"metadata": {"merged": True}})
        return web.json_response({"detail": "none"}, status=404)


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    service = Service()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
