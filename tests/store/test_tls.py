"""TLS to one server, to Sentinels and to a Cluster, with certificates made here.

The embedded server's program is built without TLS, so a proxy speaks it for the server: what is tested is this side.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
from redis.asyncio.connection import SSLConnection

from coordination.coordinator import Coordinator
from coordination.dev.ports import LOOPBACK, free_tcp_ports
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import StoreUnavailable
from coordination.store.sentinel import SentinelTopology
from coordination.store.targets import topology_of
from tests.store.servers import Node, Servers, eventually, running


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority, and what it signed."""

    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def server(self, *, ask_clients: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.file("ca.crt"))
        context.load_cert_chain(self.file("server.crt"), self.file("server.key"))
        context.verify_mode = ssl.CERT_REQUIRED if ask_clients else ssl.CERT_NONE
        return context

    def options(self, *, client: bool = False, **more: str) -> str:
        own = {"ssl_certfile": self.file("client.crt"), "ssl_keyfile": self.file("client.key")} if client else {}
        return "?" + urlencode({"ssl_ca_certs": self.file("ca.crt"), **own, **more})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=Test authority")
    (folder / "names").write_text(f"subjectAltName=IP:{LOOPBACK}\n")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.crt")
    return Certificates(folder)


@asynccontextmanager
async def tls_in_front_of(port: int, context: ssl.SSLContext, listen: int = 0) -> AsyncIterator[int]:
    """The port of a proxy that speaks TLS to clients and plain to the server."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(LOOPBACK, port)
        for one in (pump(reader, there[1]), pump(there[0], writer)):
            task = asyncio.create_task(one)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, LOOPBACK, listen, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def use(url: str) -> None:
    """A lock that is passed on: commands and pushed grants."""
    async with Coordinator.open(url) as here, Coordinator.open(url) as there:
        held = await here.acquire_lock("x")
        waiting = asyncio.create_task(there.acquire_lock("x"))
        await asyncio.sleep(0.05)
        await held.release()
        assert (await asyncio.wait_for(waiting, 5)).fence > held.fence


async def test_a_server_is_used_by_tls_and_its_certificate_is_checked(
    valkey: EmbeddedValkey, certificates: Certificates
):
    async with tls_in_front_of(valkey.port, certificates.server()) as port:
        await use(f"rediss://{LOOPBACK}:{port}/0{certificates.options()}")

        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            await use(f"rediss://{LOOPBACK}:{port}/0")


async def test_a_server_that_asks_for_a_certificate_gets_it(valkey: EmbeddedValkey, certificates: Certificates):
    async with tls_in_front_of(valkey.port, certificates.server(ask_clients=True)) as port:
        await use(f"rediss://{LOOPBACK}:{port}/0{certificates.options(client=True)}")

        with pytest.raises(StoreUnavailable):
            await use(f"rediss://{LOOPBACK}:{port}/0{certificates.options()}")


class LoneCluster(Servers):
    """One node that owns all slots and announces another port than its own."""

    def __init__(self) -> None:
        super().__init__()
        port, bus, self.announced = free_tcp_ports(3)
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-announce-port")
        self.nodes = [Node(self.folder, port, *cluster, str(self.announced))]

    async def start(self) -> None:
        (node,) = self.nodes
        await node.start()
        await node.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        async def look() -> bool:
            return b"cluster_state:ok" in await node.call("CLUSTER", "INFO")

        await eventually(look, "the node owns its slots")


async def test_a_cluster_is_used_by_tls(certificates: Certificates):
    async with running(LoneCluster) as servers:
        port = servers.nodes[0].port
        async with tls_in_front_of(port, certificates.server(), servers.announced):
            await use(f"redis+cluster://{LOOPBACK}:{servers.announced}{certificates.options(tls='true')}")


class LoneSentinel(Servers):
    """A primary and a Sentinel that asks for a password."""

    def __init__(self) -> None:
        super().__init__()
        data, sentinel = free_tcp_ports(2)
        self.data, self.sentinel = Node(self.folder, data), Node(self.folder, sentinel, sentinel=True)
        self.nodes = [self.data, self.sentinel]

    async def start(self) -> None:
        await asyncio.gather(self.data.start(), self.sentinel.start())
        await self.sentinel.call("SENTINEL", "MONITOR", "house", LOOPBACK, self.data.port, 1)


async def test_sentinels_are_asked_by_tls(certificates: Certificates):
    async with (
        running(LoneSentinel) as servers,
        tls_in_front_of(servers.sentinel.port, certificates.server()) as port,
    ):
        await use(f"redis+sentinel://{LOOPBACK}:{port}/house{certificates.options(sentinel_tls='true')}")


def test_tls_is_for_the_data_servers_of_a_sentinel_and_for_the_sentinels_unless_they_are_excepted():
    both = topology_of("redis+sentinel://u:p@s1:1,s2:2/house/3?tls=true&sentinel_password=q&ssl_ca_certs=/ca")
    data_only = topology_of("redis+sentinel://s1:1/house?tls=true&sentinel_tls=no")

    assert isinstance(both, SentinelTopology)
    assert isinstance(data_only, SentinelTopology)
    assert (both._primary.kind, {one.kind for one in both._sentinels}) == (SSLConnection, {SSLConnection})
    assert SSLConnection not in {one.kind for one in data_only._sentinels}
    assert data_only._primary.kind is SSLConnection
    assert both._primary.options["db"] == 3
    assert (both._primary.options["username"], both._primary.options["password"]) == ("u", "p")
    assert {(one.options.get("username"), one.options["password"]) for one in both._sentinels} == {(None, "q")}
    assert [one.label for one in both._sentinels] == ["s1:1", "s2:2"]
