"""The proxy does to a connection what its fault says, while it is open, and undoes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from coordination.dev.ports import LOOPBACK
from coordination.errors import InvalidArgument
from coordination.testing.proxy import Direction, FaultyProxy

SOON = 5.0
HELD = 0.1
"""How long a test waits to see that nothing comes."""


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it is sent, in capitals; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024):
                writer.write(data.upper())
                await writer.drain()
            writer.write(b"bye")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultyProxy]:
    async with echo() as port, FaultyProxy.to(port) as running:
        yield running


async def connect(proxy: FaultyProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(LOOPBACK, proxy.port)


async def ask(line: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes) -> bytes:
    line[1].write(text)
    return await asyncio.wait_for(line[0].read(1024), SOON)


async def held(line: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> asyncio.Task[bytes]:
    """The next answer, once it is certain that it does not come by itself."""
    answer = asyncio.create_task(line[0].read(1024))
    done, _ = await asyncio.wait([answer], timeout=HELD)
    assert not done, "the answer was to be held back"
    return answer


async def test_it_passes_everything_on_and_counts_it(proxy: FaultyProxy) -> None:
    line = await connect(proxy)

    assert await ask(line, b"hello") == b"HELLO"
    line[1].write_eof()
    assert await asyncio.wait_for(line[0].read(), SOON) == b"bye"

    assert (proxy.statistics.bytes_up, proxy.statistics.bytes_down) == (5, 8)
    line[1].close()


async def test_a_delay_moves_both_ways_and_keeps_the_order(proxy: FaultyProxy) -> None:
    line = await connect(proxy)
    await ask(line, b"warm")
    proxy.delay(timedelta(milliseconds=100))
    loop = asyncio.get_running_loop()
    began = loop.time()

    line[1].write(b"one ")
    await asyncio.sleep(0.02)
    line[1].write(b"two")
    answer = await asyncio.wait_for(line[0].readexactly(7), SOON)

    assert answer == b"ONE TWO"
    assert loop.time() - began >= 0.2
    proxy.heal()
    assert await ask(line, b"x") == b"X"
    line[1].close()


@pytest.mark.parametrize("direction", list(Direction))
async def test_what_falls_into_a_black_hole_arrives_when_the_path_is_back(
    proxy: FaultyProxy, direction: Direction
) -> None:
    line = await connect(proxy)
    await ask(line, b"warm")
    up = proxy.statistics.bytes_up
    proxy.black_hole(direction)

    line[1].write(b"lost?")
    answer = await held(line)
    arrived = proxy.statistics.bytes_up > up
    proxy.heal()

    assert arrived is (direction is Direction.DOWN)
    assert await asyncio.wait_for(answer, SOON) == b"LOST?"
    line[1].close()


async def test_a_black_hole_hides_the_end_of_a_connection(proxy: FaultyProxy) -> None:
    line = await connect(proxy)
    await ask(line, b"warm")
    proxy.black_hole()

    line[1].write_eof()
    goodbye = await held(line)
    proxy.heal()

    assert await asyncio.wait_for(goodbye, SOON) == b"bye"
    line[1].close()


async def test_a_cut_resets_what_is_open_and_lets_new_connections_in(proxy: FaultyProxy) -> None:
    lines = [await connect(proxy) for _ in range(2)]
    for line in lines:
        await ask(line, b"warm")

    assert proxy.cut() == 2

    for line in lines:
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(line[0].read(1024), SOON)
        line[1].close()
    fresh = await connect(proxy)
    assert await ask(fresh, b"again") == b"AGAIN"
    fresh[1].close()


async def test_it_refuses_new_connections_keeps_old_ones_and_comes_back_on_its_port(proxy: FaultyProxy) -> None:
    line = await connect(proxy)
    await ask(line, b"warm")
    proxy.refuse()

    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    assert await ask(line, b"still") == b"STILL"

    await proxy.accept()
    fresh = await connect(proxy)
    assert await ask(fresh, b"new") == b"NEW"
    for each in (line, fresh):
        each[1].close()


async def test_a_server_that_is_away_looks_like_one_to_the_client() -> None:
    async with echo() as port:
        pass
    async with FaultyProxy.to(port) as proxy:
        reader, writer = await connect(proxy)

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), SOON)
        writer.close()


async def test_closing_leaves_no_connection(proxy: FaultyProxy) -> None:
    line = await connect(proxy)
    await ask(line, b"warm")
    proxy.black_hole()

    await asyncio.wait_for(proxy.close(), SOON)

    assert proxy.statistics.open == 0
    line[1].close()


def test_a_url_leads_through_the_proxy_with_all_else_unchanged() -> None:
    proxy = FaultyProxy(6379, port=7000)

    assert proxy.url("redis://user:word@127.0.0.1:6379/3") == "redis://user:word@127.0.0.1:7000/3"
    assert proxy.url("ws://127.0.0.1:6379") == "ws://127.0.0.1:7000"


def test_it_is_for_this_machine_only() -> None:
    with pytest.raises(InvalidArgument, match="loopback only"):
        FaultyProxy.to("redis://cache.example.org:6379")
