"""Waiters that die or stop, holders that die, requests that are cancelled, replies that are lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from datetime import timedelta

from redis.asyncio import Redis

from benchmarks.rows import Row, Spread
from coordination.coordinator import Coordinator
from coordination.settings import CoordinatorSettings

WAITER = """
import asyncio, sys
from datetime import timedelta
from coordination.coordinator import Coordinator
from coordination.settings import CoordinatorSettings

async def main():
    settings = CoordinatorSettings(floor_ttl=timedelta(seconds=float(sys.argv[2])))
    async with Coordinator.open(sys.argv[1], settings=settings) as coordinator:
        floor = coordinator.room(sys.argv[3]).floor
        await floor.listen()
        await floor.request("doomed", timeout=None)
        print("holds", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
TIMES = 12


async def measure(url: str) -> list[Row]:
    async with Coordinator.open(url, settings=CoordinatorSettings(floor_ttl=timedelta(seconds=30))) as coordinator:
        closed = [await _dead_waiter(coordinator, url, f"closed-{n}", signal.SIGKILL, 0.02) for n in range(TIMES)]
        stopped = [await _dead_waiter(coordinator, url, f"stopped-{n}", signal.SIGSTOP, 0.0) for n in range(TIMES)]
        dead = [await _dead_holder(coordinator, url, f"dead-{n}") for n in range(4)]
        return [
            _bounded("dead waiter at the head, its socket closed 20 ms before", closed, 50),
            _bounded("stopped waiter at the head", stopped, 300),
            Row(name="dead holder, TTL 2 s", target="", measured=Spread.of(dead).text("ms", digits=0), ok=None),
            await _cancelled(coordinator),
            await _lost_replies(coordinator, url),
        ]


def _bounded(name: str, took: list[float], most: float) -> Row:
    spread = Spread.of(took)
    return Row(name=name, target=f"<= {most:.0f} ms", measured=spread.text("ms", digits=1), ok=spread.most <= most)


async def _start(url: str, ttl: float, room: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", WAITER, url, str(ttl), room, stdout=asyncio.subprocess.PIPE
    )


async def _queued(coordinator: Coordinator, room: str, many: int) -> None:
    async with asyncio.timeout(20):
        while len((await coordinator.room(room).floor.state()).queue) < many:
            await asyncio.sleep(0.002)


async def _dead_waiter(coordinator: Coordinator, url: str, room: str, how: signal.Signals, before: float) -> float:
    """Milliseconds from the release to the lease of the one behind the dead one."""
    floor = coordinator.room(room).floor
    held = await floor.request("holder")
    doomed = await _start(url, 30, room)
    try:
        await _queued(coordinator, room, 1)
        heir = asyncio.create_task(floor.request("heir", timeout=None))
        await _queued(coordinator, room, 2)
        doomed.send_signal(how)
        await asyncio.sleep(before)
        began = time.perf_counter()
        await held.release()
        lease = await heir
        took = (time.perf_counter() - began) * 1000
        await lease.release()
    finally:
        with contextlib.suppress(ProcessLookupError):
            doomed.kill()
        await doomed.communicate()
    return took


async def _dead_holder(coordinator: Coordinator, url: str, room: str) -> float:
    doomed = await _start(url, 2, room)
    assert doomed.stdout is not None
    await doomed.stdout.readline()
    heir = asyncio.create_task(coordinator.room(room).floor.request("heir", timeout=None))
    await _queued(coordinator, room, 1)
    began = time.perf_counter()
    doomed.kill()
    await (await heir).release()
    await doomed.communicate()
    return (time.perf_counter() - began) * 1000


async def _cancelled(coordinator: Coordinator) -> Row:
    """Acquires that are cancelled at every point of their way; what is left of them afterwards."""
    leaked = 0
    for turn in range(100):
        task = asyncio.create_task(coordinator.acquire_lock(f"cancelled-{turn}", timeout=None))
        for _ in range(turn % 10):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            await task.result().release()
    await asyncio.sleep(0.2)
    for turn in range(100):
        try:
            lease = await coordinator.acquire_lock(f"cancelled-{turn}", timeout=timedelta(seconds=0.05))
            await lease.release()
        except TimeoutError:
            leaked += 1
    return Row(name="100 cancelled acquires: leaked", target="0", measured=str(leaked), ok=leaked == 0)


async def _lost_replies(coordinator: Coordinator, url: str) -> Row:
    """The command connection is cut while requests are on their way: each must still get its lock, once."""
    took: list[float] = []
    async with Redis.from_url(url) as client:
        for turn in range(20):
            began = time.perf_counter()
            task = asyncio.create_task(coordinator.acquire_lock(f"lost-{turn}", timeout=timedelta(seconds=5)))
            await asyncio.sleep(0)
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            lease = await task
            took.append((time.perf_counter() - began) * 1000)
            await lease.release()
    spread = Spread.of(took)
    return Row(
        name="lost reply: time to the lock, TTL 10 s",
        target="<= 1000 ms",
        measured=spread.text("ms", digits=1),
        ok=spread.most <= 1000,
        notes="a request that waits for its own forgotten grant would take the TTL",
    )
