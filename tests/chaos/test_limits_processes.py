"""Limits between real processes that hammer, are killed, stopped and woken, and whose clocks are wrong."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import LimitExceeded
from tests.chaos.limited import CONFIG
from tests.chaos.processes import BOUND, Start, heard, processes_of, said
from tests.store.limited import NOW


@pytest.fixture
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey() as server:
        yield server


@pytest.fixture
async def start(valkey: EmbeddedValkey) -> AsyncIterator[Start]:
    """Starts users of the limits."""
    async with processes_of("limited.py", valkey.url) as started:
        yield started


def most_in_a_window(taken: list[tuple[int, int]], window: int) -> int:
    """The largest sum of costs in any window, both ends included."""
    most = inside = first = 0
    for moment, cost in taken:
        inside += cost
        while taken[first][0] < moment - window:
            inside -= taken[first][1]
            first += 1
        most = max(most, inside)
    return most


async def test_no_window_holds_more_than_the_limit_allows_whatever_the_processes_do(start: Start) -> None:
    """Five processes hammer, one is killed and one stopped for a while; two have clocks that are an hour off."""
    offs = [0.0, 3600.0, -3600.0, 0.0, 0.0]
    processes = [await start("hammer", "3", CLOCK_OFF=str(off)) for off in offs]
    await heard(processes[4], "ready")
    await asyncio.sleep(0.8)
    processes[3].kill()
    processes[4].send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.6)
    processes[4].send_signal(signal.SIGCONT)
    tokens: list[tuple[int, int]] = []
    for process in processes:
        for what, cost, moment in await said(process):
            if what == "took":
                tokens.append((int(moment), int(cost)))
    tokens.sort()
    requests = [(moment, 1) for moment, _ in tokens]

    assert len(tokens) > 100
    for window in (10_000, 100_000, 1_000_000, 2_000_000):
        assert most_in_a_window(tokens, window) <= 2000 * window / 1e6 + 300 + 1
        assert most_in_a_window(requests, window) <= 400 * window / 1e6 + 40 + 1
    # It is a limit, and not a standstill: most of the rate of the second before last was used.
    end = tokens[-1][0] - 500_000
    assert sum(cost for moment, cost in tokens if end - 1_000_000 < moment <= end) > 1000


async def test_what_a_killed_process_held_is_free_within_five_seconds(start: Start, valkey: EmbeddedValkey) -> None:
    async with Coordinator.open(valkey.url, limits=CONFIG) as here:
        doomed = await start("hold", "10", "20")
        await heard(doomed, "holding")
        with pytest.raises(LimitExceeded):
            await here.limits.call("mine", tenant="acme")
        with pytest.raises(LimitExceeded):
            await here.limits.reserve("s", streams=1, timeout=NOW)

        doomed.kill()
        killed_at = time.monotonic()
        calls = [here.limits.call(f"mine-{number}", timeout=None) for number in range(10)]
        streams = [here.limits.reserve("s", streams=1, timeout=None) for _ in range(20)]
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*calls, *streams)

        assert time.monotonic() - killed_at < 5


async def test_a_stopped_process_that_comes_back_loses_the_streams_that_others_have(
    start: Start, valkey: EmbeddedValkey
) -> None:
    async with Coordinator.open(valkey.url, limits=CONFIG) as here:
        sleeper = await start("hold", "0", "20")
        await heard(sleeper, "holding")
        sleeper.send_signal(signal.SIGSTOP)
        streams = [here.limits.reserve("s", streams=1, timeout=None) for _ in range(5)]
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*streams)

        sleeper.send_signal(signal.SIGCONT)
        while int((await heard(sleeper, "lost"))[1]) < 5:
            pass

        use = await here.limits.show("s")
        assert use.limits[0].available == 0
