"""From one holder's release to the next one's lease, with 2 and with 50 waiters; and what waiting costs the server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from statistics import median

from redis.asyncio import Redis

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.rows import Row, Spread
from coordination.coordinator import Coordinator

HANDOVERS = 1200
HOLD = 0.001
"""Seconds for which each holds: long enough that all others wait again."""


async def measure(url: str) -> list[Row]:
    client = Redis.from_url(url, socket_timeout=None, max_connections=200)
    rows: list[Row] = []
    async with Coordinator.open(url) as here, Coordinator.open(url) as there:
        ours = [peers.baton(here), peers.baton(there)]
        for waiters in (2, 50):
            rows += await _compare(ours, [peers.fifo(client)], waiters)
        rows.append(await _redis_py(client))
        rows.append(await _idle_cost(client, ours))
    await client.aclose()
    return rows


async def _compare(ours: list[Peer], theirs: list[Peer], waiters: int) -> list[Row]:
    mine: list[float] = []
    other: list[float] = []
    ratios: list[float] = []
    inversions = 0
    rounds = 6
    for _ in range(rounds):
        figures: dict[str, list[float]] = {}
        for group in random.sample([ours, theirs], 2):
            took, turned = await _ring(group, waiters, HANDOVERS // rounds)
            figures[group[0].name] = took
            if group is ours:
                inversions += turned
        mine += figures[ours[0].name]
        other += figures[theirs[0].name]
        ratios.append(median(figures[ours[0].name]) / median(figures[theirs[0].name]))
    ratio = median(ratios)
    return [
        Row(
            name=f"release to next holder, {waiters} waiters, against redis-fifo-lock",
            target="p50 <= 0.7 x",
            measured=f"{ratio:.2f} x ({min(ratios):.2f} to {max(ratios):.2f})",
            ok=ratio <= 0.7,
            notes=f"ours {Spread.of(mine).text('ms')}; theirs {Spread.of(other).text('ms')}",
        ),
        Row(
            name=f"order inversions, {waiters} waiters, {HANDOVERS} hand-overs",
            target="0",
            measured=str(inversions),
            ok=inversions == 0,
        ),
    ]


async def _ring(group: Sequence[Peer], waiters: int, handovers: int) -> tuple[list[float], int]:
    """Tasks that take the lock one after the other; milliseconds from each release to the next lease."""
    name = f"ring-{random.randrange(10**9)}"
    for peer in group:
        # Subscriptions and scripts that the first use brings are not part of a hand-over.
        await peer.release(await peer.acquire(name))
    took: list[float] = []
    arrivals: list[int] = []
    left_at = 0.0
    inversions = 0
    done = asyncio.Event()

    async def contend(number: int) -> None:
        nonlocal left_at, inversions
        peer = group[number % len(group)]
        while not done.is_set():
            arrivals.append(number)
            held = await peer.acquire(name)
            now = time.perf_counter()
            if left_at:
                took.append((now - left_at) * 1000)
            if arrivals[0] != number:
                inversions += 1
            arrivals.remove(number)
            if len(took) >= handovers:
                done.set()
            await asyncio.sleep(HOLD)
            left_at = time.perf_counter()
            await peer.release(held)

    start = await group[0].acquire(name)
    tasks: list[asyncio.Task[None]] = []
    for number in range(waiters + 1):
        tasks.append(asyncio.create_task(contend(number)))
        # One after the other, so that the order of arrival is the order in which the server sees them.
        await asyncio.sleep(0.002)
    await group[0].release(start)
    await asyncio.gather(*tasks)
    return took, inversions


async def _redis_py(client: Redis) -> Row:
    took, _ = await _ring([peers.redis_py(client)], 2, 60)
    return Row(
        name="release to next holder, 2 waiters: redis-py lock", target="", measured=Spread.of(took).text("ms"), ok=None
    )


async def _idle_cost(client: Redis, ours: list[Peer]) -> Row:
    """Calls while 50 tasks of two processes wait and nothing happens."""
    held = await ours[0].acquire("idle")
    tasks = [asyncio.create_task(_wait(ours[number % 2], "idle")) for number in range(50)]
    await asyncio.sleep(0.5)
    before = await _calls(client)
    window = 2 * peers.TTL.total_seconds()
    await asyncio.sleep(window)
    calls = await _calls(client) - before - 1
    await ours[0].release(held)
    await asyncio.gather(*tasks)
    # Two waiting processes ask once in a TTL each; the holder renews three times in it.
    allowed = 2 * (1 + 1) + 2 * 3 + 2
    return Row(
        name=f"EVALSHA in {window:.0f} s while 50 tasks of 2 processes wait",
        target=f"<= {allowed}",
        measured=str(calls),
        ok=calls <= allowed,
        notes="one look per process and TTL, three renewals per TTL, the first and last of a window may fall into it",
    )


async def _wait(peer: Peer, name: str) -> None:
    await peer.release(await peer.acquire(name))


async def _calls(client: Redis) -> int:
    stats = await client.info("commandstats")
    return sum(int(each["calls"]) for name, each in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))
