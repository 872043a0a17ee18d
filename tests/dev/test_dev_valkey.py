"""The embedded Valkey: fit for Baton, back at the same address, and never left behind."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from coordination.dev import ComponentFailed, ComponentMissing, EmbeddedValkey
from coordination.dev.process import eventually_now
from coordination.dev.valkey import find_valkey
from coordination.store import Store
from tests.dev.conftest import is_alive

FIVE_SECONDS = timedelta(seconds=5)


async def test_it_serves_what_the_store_asks_for_on_a_port() -> None:
    async with EmbeddedValkey() as valkey:
        store = Store(valkey.url)
        await store.open()  # refuses an old, evicting or read-only server

        assert await store.command("PING") in (b"PONG", "PONG")

        await store.close()


async def test_it_serves_on_a_socket_file_and_opens_no_port() -> None:
    async with EmbeddedValkey(unix=True) as valkey:
        store = Store(valkey.url)
        await store.open()

        assert valkey.port == 0
        assert (await store.command("CONFIG", "GET", "port"))[1] == b"0"

        await store.close()


async def test_it_comes_back_empty_at_the_same_address_after_a_crash() -> None:
    async with EmbeddedValkey() as valkey:
        address, first = valkey.url, valkey.pid
        store = Store(address)
        await store.open()
        await store.command("SET", "probe", "1", "EX", "60")
        await store.close()

        valkey.kill()
        assert not valkey.running
        await valkey.start()

        store = Store(valkey.url)
        await store.open()
        assert (valkey.url, await store.command("EXISTS", "probe")) == (address, 0)
        assert valkey.pid != first
        await store.close()


def test_nothing_is_left_when_the_block_ends() -> None:
    with EmbeddedValkey() as valkey:
        pid, directory = valkey.pid, valkey.directory
        assert pid is not None

    assert not is_alive(pid)
    assert not directory.exists()


def test_it_ends_with_a_parent_that_was_killed() -> None:
    script = (
        "import time; from coordination.dev import EmbeddedValkey;"
        "v = EmbeddedValkey().start_now(); print(v.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)

        parent.kill()

    assert eventually_now(lambda: not is_alive(pid), FIVE_SECONDS), f"valkey-server {pid} is still there"


async def test_a_start_that_fails_tells_the_last_words_and_leaves_nothing() -> None:
    valkey = EmbeddedValkey(arguments=["--no-such-option", "1"])

    with pytest.raises(ComponentFailed, match=r"(?s)ended with status 1 at start.*no-such-option"):
        await valkey.start()

    assert not valkey.running


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        valkey = EmbeddedValkey(port=taken.getsockname()[1])

        with pytest.raises(ComponentFailed, match="Address already in use"):
            await valkey.start()


def test_without_the_wheel_the_path_is_searched_and_without_both_the_remedies_are_named(
    on_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ComponentMissing, match=r"livekit-baton\[dev\].*redis-server"):
        find_valkey()

    program = on_path("redis-server")
    assert find_valkey() == program
