"""The page on which a person talks or types to the agents of a development stack.

A small server on 127.0.0.1 gives out the page and, for each call, a token for a room of its own into which LiveKit
dispatches the first agent. Whoever gets a token can talk to the agents, so requests that a foreign web page could make
a browser send are refused: the Host must be this machine, and the Origin, where there is one, this page.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from coordination.dev.errors import DevError
from coordination.dev.extras import require_aiohttp, require_livekit
from coordination.dev.livekit_server import ExternalLiveKit
from coordination.dev.ports import LOOPBACK
from coordination.errors import InvalidName
from coordination.ids import DEFAULT_TENANT, Tenant, check_name

if TYPE_CHECKING:
    from aiohttp import web

_FILES = Path(__file__).parent / "page"
_TOKEN_LIVES = timedelta(hours=6)
_LARGEST_REQUEST = 4096
_POLICY = "default-src 'self'; connect-src 'self' ws: wss: http: https:; media-src 'self' blob:"

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


class DevPage:
    """Serves the page while it is open: `async with DevPage(livekit, role="receptionist") as page: page.url`.

    A call is dispatched to `role`; an empty role leaves that to agents without a name, which LiveKit sends to every
    room. `roles` are shown from the start, in this order. Port 0 takes a free one. Raises `ComponentMissing` without
    aiohttp, `DevError` if the port is taken.
    """

    def __init__(
        self,
        livekit: ExternalLiveKit,
        *,
        role: str,
        roles: Sequence[str] = (),
        tenant: Tenant = DEFAULT_TENANT,
        port: int = 0,
    ) -> None:
        self._livekit = livekit
        self._role = role
        self._roles = [each for each in dict.fromkeys([role, *roles]) if each]
        self._tenant = tenant
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"http://localhost:{self._port}/"

    async def start(self) -> Self:
        web = _aiohttp_web()
        app = web.Application(client_max_size=_LARGEST_REQUEST, middlewares=[_guard(self._hosts)])
        app.router.add_get("/", self._index)
        app.router.add_get("/api/stack", self._stack)
        app.router.add_post("/api/join", self._join)
        app.router.add_static("/page", _FILES)
        runner = self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        try:
            await runner.setup()
            site = web.TCPSite(runner, LOOPBACK, self._port)
            await site.start()
            self._port = int(runner.addresses[0][1])
        except BaseException as fault:
            await self.stop()
            if isinstance(fault, OSError):
                raise DevError(f"The page cannot use port {self._port} ({fault.strerror}): choose another.") from fault
            raise
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def ticket(self, room: str) -> dict[str, str]:
        """What the browser needs to join the room as a caller. The first to join brings the first agent there."""
        require_livekit()
        # Imported here: the command line shows its help without LiveKit's packages.
        from livekit import api

        from coordination.livekit.dispatch import DispatchMetadata

        identity = f"caller-{secrets.token_hex(3)}"
        grants = api.VideoGrants(room_join=True, room=room, can_publish_sources=["microphone"])
        token = api.AccessToken(self._livekit.api_key, self._livekit.api_secret)
        token = token.with_identity(identity).with_name("Caller").with_ttl(_TOKEN_LIVES).with_grants(grants)
        if self._role:
            metadata = DispatchMetadata(tenant=self._tenant).format()
            dispatch = api.RoomAgentDispatch(agent_name=self._role, metadata=metadata)
            token = token.with_room_config(api.RoomConfiguration(agents=[dispatch]))
        return {"url": self._livekit.url, "token": token.to_jwt(), "room": room, "identity": identity}

    def _hosts(self) -> set[str]:
        return {f"{name}:{self._port}" for name in ("localhost", LOOPBACK)}

    async def _index(self, _: web.Request) -> web.StreamResponse:
        return _aiohttp_web().FileResponse(_FILES / "index.html")

    async def _stack(self, _: web.Request) -> web.StreamResponse:
        return _aiohttp_web().json_response({"first": self._role, "roles": self._roles})

    async def _join(self, request: web.Request) -> web.StreamResponse:
        web = _aiohttp_web()
        # A foreign page cannot send this type without asking first, and nobody answers such a question here.
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Send JSON.")
        try:
            body: Any = await request.json()
            wanted = body.get("room") or f"call-{secrets.token_hex(4)}"
            room = check_name(wanted, "room")
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
            raise web.HTTPBadRequest(text='Send a JSON object such as {"room": "call-7"}, or {}.') from None
        except InvalidName as fault:
            raise web.HTTPBadRequest(text=str(fault)) from None
        return web.json_response(self.ticket(room))

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _guard(own_hosts: Callable[[], set[str]]) -> Any:
    """Middleware that refuses what did not come from the page itself."""
    web = _aiohttp_web()

    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts, origin = own_hosts(), request.headers.get("Origin")
        if request.host not in hosts or (origin is not None and origin.removeprefix("http://") not in hosts):
            raise web.HTTPForbidden(text="This page answers only to itself, on this machine.")
        response = await handler(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["Cache-Control"] = "no-cache"
        return response

    return web.middleware(guard)


def _aiohttp_web() -> Any:
    require_aiohttp()
    from aiohttp import web

    return web
