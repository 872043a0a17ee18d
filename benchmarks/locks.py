"""Acquire and release of a free lock: latency, commands and throughput, paired with the peers in shuffled rounds."""

from __future__ import annotations

import asyncio
import random
import time
from statistics import median

from redis.asyncio import Redis

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.rows import Row, Spread
from coordination.coordinator import Coordinator

ROUNDS = 15
PER_ROUND = 200
TASKS = 100


async def measure(url: str) -> list[Row]:
    client = Redis.from_url(url, socket_timeout=None)
    sha: str = await client.script_load("return 1")
    async with Coordinator.open(url) as coordinator:
        ours, base = peers.baton(coordinator), peers.bare(client, sha)
        everybody = [base, ours, peers.redis_py(client), peers.fifo(client)]
        rows = await _latency(everybody)
        rows.append(await _commands(client, ours))
        rows.append(await _throughput(base, ours))
    await client.aclose()
    return rows


async def _once(peer: Peer, name: str) -> None:
    await peer.release(await peer.acquire(name))


async def _latency(everybody: list[Peer]) -> list[Row]:
    rounds: dict[str, list[float]] = {peer.name: [] for peer in everybody}
    singles: list[float] = []
    for peer in everybody:
        for _ in range(PER_ROUND):
            await _once(peer, f"{peers.NAME}:{peer.name}")
    for _ in range(ROUNDS):
        for peer in random.sample(everybody, len(everybody)):
            took: list[float] = []
            for _ in range(PER_ROUND):
                began = time.perf_counter()
                await _once(peer, f"{peers.NAME}:{peer.name}")
                took.append(time.perf_counter() - began)
            rounds[peer.name].append(median(took))
            if peer.name == "baton":
                singles += took
    base = rounds["2 x EVALSHA"]
    rows: list[Row] = []
    for name, medians in rounds.items():
        if name == "2 x EVALSHA":
            continue
        ratios = sorted(mine / theirs for mine, theirs in zip(medians, base, strict=True))
        ratio = median(ratios)
        shown = f"{ratio:.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f}); {median(medians) * 1e6:.0f} us"
        ours = name == "baton"
        rows.append(
            Row(
                name=f"acquire + release, free lock: {name} against 2 x EVALSHA",
                target="<= 1.25 x" if ours else "",
                measured=shown,
                ok=ratio <= 1.25 if ours else None,
                notes=Spread.of([each * 1e6 for each in singles]).text("us", digits=0) if ours else "",
            )
        )
    return rows


async def _commands(client: Redis, ours: Peer) -> Row:
    """What the server counts, the commands inside of scripts included."""
    many = 100
    await _once(ours, "counted")
    await client.config_resetstat()
    for _ in range(many):
        await _once(ours, "counted")
    stats = await client.info("commandstats")
    calls = {name: int(each["calls"]) for name, each in stats.items() if "info" not in name and "config" not in name}
    each = sum(calls.values()) / many
    return Row(name="Redis commands in acquire + release", target="<= 10", measured=f"{each:.2f}", ok=each <= 10.1)


async def _throughput(base: Peer, ours: Peer) -> Row:
    async def run(peer: Peer, repeat: int = 60) -> float:
        async def task(number: int) -> None:
            for _ in range(repeat):
                await _once(peer, f"task-{number}")

        began = time.perf_counter()
        await asyncio.gather(*(task(number) for number in range(TASKS)))
        return TASKS * repeat / (time.perf_counter() - began)

    ratios: list[float] = []
    best = 0.0
    for peer in (base, ours):
        await run(peer, 10)
    for _ in range(5):
        figures = {peer.name: await run(peer) for peer in random.sample([base, ours], 2)}
        ratios.append(figures[ours.name] / figures[base.name])
        best = max(best, figures[ours.name])
    ratio = median(ratios)
    return Row(
        name=f"throughput of {TASKS} tasks against 2 x EVALSHA",
        target=">= 0.85 x",
        measured=f"{ratio:.2f} x ({min(ratios):.2f} to {max(ratios):.2f}); {best:.0f} pairs/s",
        ok=ratio >= 0.85,
    )
