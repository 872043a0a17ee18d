"""Connections that are lost, replies that never come: nobody misses a grant, a request is repeated as itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import InvalidArgument, StoreRefused
from coordination.settings import CoordinatorSettings
from coordination.store import Store
from coordination.store.link import Link

SOON = 8.0


async def queue_of(coordinator: Coordinator, many: int) -> None:
    async with asyncio.timeout(SOON):
        while len((await coordinator.room("call").floor.state()).queue) < many:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_a_waiter_whose_connections_are_cut_gets_its_grant(
    valkey: EmbeddedValkey, store: Store, kind: str
) -> None:
    """With a TTL of a minute: the waiter's own look at the end of it comes too late for this test."""
    long = CoordinatorSettings(floor_ttl=timedelta(minutes=1))
    async with (
        Coordinator.open(valkey.url, settings=long) as here,
        Coordinator.open(valkey.url, settings=long) as there,
    ):
        lease = await here.room("call").floor.request("a")
        waiting = asyncio.create_task(there.room("call").floor.request("b", timeout=None))
        await queue_of(here, 1)

        await store.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await lease.release()

        heir = await asyncio.wait_for(waiting, SOON)
        assert heir.held
        assert (await there.room("call").floor.state()).holder == "b"


async def test_a_holder_whose_connections_are_cut_keeps_its_floor(
    coordinator: Coordinator, other: Coordinator, store: Store
) -> None:
    lease = await coordinator.room("call").floor.request("a")
    for _ in range(3):
        for kind in ("normal", "pubsub"):
            await store.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await asyncio.sleep(0.5)

    assert lease.held
    assert (await other.room("call").floor.state()).fence == lease.fence
    assert await other.room("call").floor.try_request("b") is None


async def test_a_request_whose_reply_is_lost_becomes_one_grant(
    coordinator: Coordinator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script has run, the connection is gone before its answer: the repeated request must not wait for itself."""
    call: Any = Link.call
    cut: list[Any] = []

    def call_and_cut(link: Link, *command: bytes | str | int) -> asyncio.Future[object]:
        reply = call(link, *command)
        if command[0] == "EVALSHA" and not cut:
            cut.append(command)
            wire = link._wire
            assert wire is not None
            wire._on_reply = lambda _: wire.abort(ConnectionResetError("cut by the test"))
        return reply

    await coordinator.acquire_lock("before")  # the server knows the script
    monkeypatch.setattr(Link, "call", call_and_cut)
    lease = await asyncio.wait_for(coordinator.acquire_lock("invoice", ttl=timedelta(seconds=30)), SOON)

    assert cut, "nothing was cut"
    assert lease.held
    grants = [key async for key in _grants(store, "invoice")]
    assert grants == [str(lease.fence)]


async def _grants(store: Store, resource: str):
    for key in await store.command("KEYS", f"*{resource}*"):
        if await store.command("TYPE", key) == b"hash" and (fence := await store.command("HGET", key, "f")):
            yield fence.decode()


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1)])
async def test_a_lock_for_no_time_is_refused(coordinator: Coordinator, ttl: timedelta) -> None:
    with pytest.raises(InvalidArgument):
        await coordinator.acquire_lock("invoice", ttl=ttl)


async def test_opening_refuses_a_server_that_says_it_is_too_old() -> None:
    """No such server can be had any more: this one answers as Redis 6.2 does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = b"# Server\r\nredis_version:6.2.14\r\nrole:master\r\n"
        while line := await reader.readline():
            if line.startswith(b"*"):
                words = [await _word(reader) for _ in range(int(line[1:]))]
                answer = b"$%d\r\n%s\r\n" % (len(info), info) if words[0].upper() == b"INFO" else b"+OK\r\n"
                writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StoreRefused, match=r"6\.2\.14.*7\.0"):
            await Coordinator.open(f"redis://127.0.0.1:{port}")


async def _word(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readline())[1:])
    return (await reader.readexactly(size + 2))[:-2]
