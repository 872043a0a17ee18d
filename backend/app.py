"""The application: its parts, its routers, and what every request passes through."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api import (
    analytics,
    conversations,
    events,
    files,
    health,
    invoices,
    livekit,
    messages,
    rooms,
    sessions,
    tickets,
    turns,
    users,
    webhooks,
)
from backend.database import Database
from backend.delivery import deliver_forever
from backend.errors import MEDIA_TYPE, Problem, handle_errors, problem
from backend.media import MediaServer
from backend.metrics import Metrics
from backend.retention import prune_forever
from backend.settings import BackendSettings
from backend.state import ServiceParts

_PROBLEM: Final = {
    "description": "The request was refused; `type` says why in a word, `detail` in a sentence.",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_ABOUT: Final = "What outlives a call: users, conversations, sessions, files, invoices, tickets, events."
VERSION: Final = "1.0.0"
"""Of the API, not of the package: it changes with what clients see."""
_ROUTERS: Final = (
    health,
    users,
    conversations,
    messages,
    turns,
    sessions,
    rooms,
    events,
    webhooks,
    livekit,
    analytics,
    files,
    invoices,
    tickets,
)


def create_app(settings: BackendSettings | None = None) -> FastAPI:
    """The service, ready to be run by any ASGI server. The database must have been migrated."""
    settings = settings or BackendSettings()
    parts = ServiceParts(settings=settings, database=Database(settings), media=MediaServer(settings), metrics=Metrics())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        tasks = [
            asyncio.create_task(deliver_forever(parts), name="deliver webhooks"),
            asyncio.create_task(prune_forever(parts), name="prune"),
        ]
        try:
            yield
        finally:
            parts.stopping.begin()
            await asyncio.gather(*tasks, return_exceptions=True)
            await parts.media.close()
            await parts.database.close()

    app = FastAPI(
        title="Baton reference backend",
        version=VERSION,
        description=_ABOUT,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.state.parts = parts
    handle_errors(app)
    for module in _ROUTERS:
        app.include_router(module.router)
    app.add_middleware(Measured, parts=parts)
    _describe_problems(app)
    return app


class Measured:
    """Counts and times each request, and refuses bodies beyond the limit, however they are sent."""

    def __init__(self, app: ASGIApp, parts: ServiceParts) -> None:
        self._app, self._parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, statuses = time.perf_counter(), [500]

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        try:
            await self._limited(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            metrics = self._parts.metrics
            metrics.requests.labels(scope["method"], route, statuses[-1]).inc()
            metrics.seconds.labels(scope["method"], route).observe(time.perf_counter() - begun)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._parts.settings.max_body
        declared: bytes = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                await _too_large(limit)(scope, receive, send)
                return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)


def _too_large(limit: int) -> Any:
    return problem(413, "too-large", f"The body is larger than {limit} bytes: send less at once.")


def _describe_problems(app: FastAPI) -> None:
    """Puts the schema of refusals where `responses` of each operation points to, in place of the framework's own."""
    describe = app.openapi

    def with_problems() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = describe()
            schemas = schema["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schema["components"]["responses"] = {"Problem": _PROBLEM}
            for operation in (it for path in schema["paths"].values() for it in path.values()):
                for status in operation["responses"]:
                    if int(status) >= 400:
                        operation["responses"][status] = {"$ref": "#/components/responses/Problem"}
            ours = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= ours.pop("$defs")
            schemas["Problem"] = ours
            schema["components"]["schemas"] = dict(sorted(schemas.items()))
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = with_problems
