"""A real livekit-server on loopback, and rooms in it, for the tests of this folder.

The server listens on 127.0.0.1 alone, on ports that were free a moment ago, and ends with the test session.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from livekit import api, rtc

API_KEY = "devkey"
API_SECRET = "a-secret-for-tests-on-loopback-only"
READY_WITHIN = 15.0
"""Seconds; it takes less than one, more on a machine that is busy with something else."""

Kind = Literal["standard", "agent", "sip", "egress", "ingress"]


def find_livekit_server() -> Path:
    """The server's executable: from the PATH, Baton's cache, or where `go install` puts it."""
    candidates = [
        shutil.which("livekit-server"),
        Path.home() / ".cache/baton/bin/livekit-server",
        Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin/server",
        Path.home() / "go/bin/server",
    ]
    for candidate in candidates:
        if candidate is not None and Path(candidate).is_file():
            return Path(candidate)
    raise FileNotFoundError(
        "No livekit-server was found, and these tests need a real one. Install it with: "
        "go install github.com/livekit/livekit-server/cmd/server@v1.13.5"
    )


def _free_ports(count: int) -> list[int]:
    """Ports that are free for TCP and UDP; held together, so that they differ."""
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.append(tcp)
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            held.append(udp)
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    finally:
        for each in held:
            each.close()
    return ports


@dataclass(slots=True)
class LiveKitServer:
    """One livekit-server process. `url` is for rooms and workers alike; kill and start it to test outages."""

    folder: Path
    port: int
    tcp_port: int
    udp_port: int
    api_key: str = API_KEY
    api_secret: str = API_SECRET
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def launch(cls, folder: Path) -> LiveKitServer:
        port, tcp_port, udp_port = _free_ports(3)
        server = cls(folder=folder, port=port, tcp_port=tcp_port, udp_port=udp_port)
        server.start()
        return server

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """LiveKit's own variables, for a child process or `monkeypatch.setenv`."""
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": self.api_key,
            "LIVEKIT_API_SECRET": self.api_secret,
        }

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        config = self.folder / "livekit.yaml"
        config.write_text(
            f"port: {self.port}\n"
            'bind_addresses: ["127.0.0.1"]\n'
            f"rtc: {{tcp_port: {self.tcp_port}, udp_port: {self.udp_port}, use_external_ip: false, "
            "enable_loopback_candidate: true, node_ip: 127.0.0.1}\n"
            f"keys: {{{self.api_key}: {self.api_secret}}}\n"
            "logging: {level: warn}\n"
        )
        with (self.folder / "livekit.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_livekit_server(), "--config", config], stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1.0):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(
            f"livekit-server is not ready: {(self.folder / 'livekit.log').read_text()[-2000:]}"
        )

    def stop(self) -> None:
        """Kills the process: it has nothing to save, and a polite end waits until all participants have left."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def token(self, room: str, identity: str, *, kind: Kind = "standard", **claims: str) -> str:
        """A token to join `room`. `claims`: name, metadata; anything else becomes an attribute."""
        token = (
            api.AccessToken(self.api_key, self.api_secret)
            .with_identity(identity)
            .with_kind(kind)  # type: ignore[arg-type]  # the Literal of the SDK, spelled in our order
            .with_name(claims.pop("name", ""))
            .with_metadata(claims.pop("metadata", ""))
            .with_grants(api.VideoGrants(room_join=True, room=room, agent=kind == "agent" or None))
        )
        if claims:
            token = token.with_attributes(claims)
        return token.to_jwt()

    def client(self) -> api.LiveKitAPI:
        """A server API client; the caller closes it (`await client.aclose()`), or uses `LiveRoom.api`."""
        return api.LiveKitAPI(self.url, self.api_key, self.api_secret)


@dataclass(slots=True)
class LiveRoom:
    """One room of the server, created through its API, and those that joined it through `join`."""

    server: LiveKitServer
    name: str
    sid: str
    api: api.LiveKitAPI
    _joined: list[rtc.Room] = field(default_factory=list[rtc.Room])

    async def join(self, identity: str, *, kind: Kind = "standard", **claims: str) -> rtc.Room:
        """Joins as a participant until the end of the test; agents' jobs are of kind "agent"."""
        room = rtc.Room()
        await room.connect(self.server.url, self.server.token(self.name, identity, kind=kind, **claims))
        self._joined.append(room)
        return room

    async def identities(self) -> set[str]:
        """Who is in the room, according to the server."""
        answer = await self.api.room.list_participants(api.ListParticipantsRequest(room=self.name))
        return {participant.identity for participant in answer.participants}

    async def metadata(self) -> str:
        """The room's metadata, according to the server."""
        answer = await self.api.room.list_rooms(api.ListRoomsRequest(names=[self.name]))
        return answer.rooms[0].metadata

    async def close(self) -> None:
        for room in self._joined:
            if room.isconnected():
                await room.disconnect()
        self._joined.clear()


RoomFactory = Callable[..., Awaitable[LiveRoom]]


async def create_room(
    server: LiveKitServer, client: api.LiveKitAPI, *, name: str | None = None, metadata: str = ""
) -> LiveRoom:
    name = name or f"room-{secrets.token_hex(4)}"
    created = await client.room.create_room(
        api.CreateRoomRequest(name=name, metadata=metadata, empty_timeout=60)
    )
    return LiveRoom(server=server, name=name, sid=created.sid, api=client)
