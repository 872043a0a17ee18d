"""Workers that die and workers that are asked to go, under five calls whose agents speak; measured at the callers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from benchmarks.calls import Call, calling
from benchmarks.desk import ROLES
from benchmarks.rows import Row, Spread
from coordination.coordinator import Coordinator
from coordination.dev.stack import DevStack
from coordination.dev.workers import WorkerProcess, WorkerSpec
from coordination.store.keys import FleetKeys
from coordination.store.store import Store
from tests.rooms.ears import eventually

CALLS = 5
WORKERS = 3
ROUNDS = 6
"""Each with calls of its own: a call whose agents die more than five times in ten minutes is given up by design."""
KILLS = 5
"""In each round."""
SPARED_CALLS = 4
DRAINS = 3
DRAIN = timedelta(seconds=60)
"""More than a worker may take: what is measured is how long it does."""
INTO_THE_STORY = 1.0
"""Seconds that an agent has spoken for when it is struck."""
FLEET_SETTLES = 1.5
"""Seconds between a worker's return and the next kill: a watcher and a deputy are there again."""
HEARD_WITHIN = 20.0


@dataclass(slots=True)
class Struck:
    """What callers heard of all blows so far, in milliseconds."""

    heard: list[float] = field(default_factory=list[float])
    overlap: float = 0.0
    lost: int = 0


async def measure(url: str) -> list[Row]:
    """Kills: a third of them hit the watcher's own worker, too."""
    struck, watchers = Struck(), 0
    async with _fleet(url) as (stack, coordinator, store):
        for _ in range(ROUNDS):
            async with five_calls(stack, coordinator) as calls:
                for number in range(KILLS):
                    fleet = coordinator.fleet.keys
                    victim, watches = await _victim(stack, calls, store, fleet, watcher=number % 3 == 0, number=number)
                    watchers += watches
                    await _kill(victim, calls, struck)
    heard = Spread.of(struck.heard)
    return [
        Row(
            name=f"{ROUNDS * KILLS} kills of a worker under {CALLS} calls: SIGKILL until the replacement is heard",
            target="p50 <= 1200 ms, p95 <= 2000 ms",
            measured=f"p95 {heard.p95:.0f}, {heard.text('ms', digits=0)}",
            ok=heard.p50 <= 1200 and heard.p95 <= 2000 and not struck.lost,
            notes=f"{watchers} of them hit the watcher's own worker; {struck.lost} calls lost",
        ),
        _two_voices("workers that die", struck),
    ]


async def measure_drains(url: str) -> list[Row]:
    """SIGTERM to a worker in the middle of what its agents say."""
    struck, took = Struck(), list[float]()
    async with _fleet(url) as (stack, coordinator, store), five_calls(stack, coordinator) as calls:
        for number in range(DRAINS):
            victim, _ = await _victim(stack, calls, store, coordinator.fleet.keys, watcher=False, number=number)
            took.append(await _drain(victim, calls, struck))
    return [
        Row(
            name=f"{DRAINS} times SIGTERM to a worker under {CALLS} calls: until it has ended",
            target="<= 10 s and what agents had to say, none dropped",
            measured=f"most {max(took):.1f} s",
            ok=max(took) <= 10 and not struck.lost,
            notes=f"{struck.lost} calls lost",
        ),
        _two_voices("workers that drain", struck),
    ]


async def measure_spares(url: str) -> list[Row]:
    """Kills of the worker that serves a call in which another agent of the role stands by, on another worker."""
    struck = Struck()
    async with _fleet(url) as (stack, coordinator, _):
        for _ in range(SPARED_CALLS):
            async with calling(stack, coordinator) as call:
                for _ in range(KILLS):
                    while not await call.spare():
                        pass
                    serving = await call.worker()
                    await _kill(next(each for each in stack.workers if each.fleet_id == serving), [call], struck)
    heard = Spread.of(struck.heard)
    return [
        Row(
            name=f"{SPARED_CALLS * KILLS} kills of a worker with a standby in the room: SIGKILL until it is heard",
            target="p50 <= 700 ms",
            measured=f"p95 {heard.p95:.0f}, {heard.text('ms', digits=0)}",
            ok=heard.p50 <= 700 and not struck.lost,
            notes=f"{struck.lost} calls lost",
        ),
        _two_voices("workers that die beside a standby", struck),
    ]


def _two_voices(what: str, struck: Struck) -> Row:
    measured = f"{struck.overlap:.0f} ms"
    return Row(name=f"{what}: two voices at once", target="0 ms", measured=measured, ok=struck.overlap == 0)


@asynccontextmanager
async def _fleet(url: str) -> AsyncIterator[tuple[DevStack, Coordinator, Store]]:
    specs = [
        WorkerSpec(
            target="benchmarks.desk",
            name=f"{ROLES[0]}-{number}",
            environment={"BENCH_ROLE": ROLES[0]},
            idle_processes=2,
            drain_timeout=DRAIN,
        )
        for number in range(WORKERS)
    ]
    store = Store(url)
    async with DevStack(specs, redis_url=url) as stack, Coordinator.open(url) as coordinator:
        await store.open()
        try:
            yield stack, coordinator, store
        finally:
            await store.close()


@asynccontextmanager
async def five_calls(stack: DevStack, coordinator: Coordinator) -> AsyncIterator[list[Call]]:
    async with AsyncExitStack() as lines:
        yield [await lines.enter_async_context(calling(stack, coordinator)) for _ in range(CALLS)]


async def _victim(
    stack: DevStack, calls: Sequence[Call], store: Store, fleet: FleetKeys, *, watcher: bool, number: int
) -> tuple[WorkerProcess, bool]:
    """The watcher's own worker if that is asked for and it has calls; else one that has, in turn."""
    ids = [await call.worker() for call in calls]
    post = await store.command("HGET", fleet.post("watcher").lease, "agent")
    on_watch = post.decode() if post is not None else ""
    wanted = on_watch if watcher and on_watch in ids else ids[number % len(ids)]
    return next(worker for worker in stack.workers if worker.fleet_id == wanted), wanted == on_watch


async def _speaking(victim: WorkerProcess, calls: Sequence[Call]) -> dict[str, Call]:
    """The calls of a worker, by the identity of the agent that has just begun to speak in it."""
    concerned = {await call.holder(): call for call in calls if await call.worker() == victim.fleet_id}
    for identity, call in concerned.items():
        await call.quiet()
        began = time.monotonic()
        await call.type("story")
        await eventually(lambda: call.ears.first_audible(identity, since=began), "the story begins")  # noqa: B023
    await asyncio.sleep(INTO_THE_STORY)
    return concerned


async def _kill(victim: WorkerProcess, calls: Sequence[Call], struck: Struck) -> None:
    concerned = await _speaking(victim, calls)
    at = time.monotonic()
    victim.kill()
    await asyncio.gather(*(_replaced(call, old, at, struck) for old, call in concerned.items()))
    victim.spawn()
    await victim.register()
    await asyncio.gather(*(call.quiet() for call in calls))
    await asyncio.sleep(FLEET_SETTLES)


async def _drain(victim: WorkerProcess, calls: Sequence[Call], struck: Struck) -> float:
    """Seconds from SIGTERM until the worker has ended by itself."""
    concerned = await _speaking(victim, calls)
    at = time.monotonic()
    victim.send_signal(signal.SIGTERM)
    await eventually(lambda: not victim.running, "the worker ends by itself", within=60)
    took = time.monotonic() - at
    for old, call in concerned.items():
        began = time.monotonic()
        await call.type("anybody")
        await _replaced(call, old, began, struck)
    victim.kill()
    victim.spawn()
    await victim.register()
    await asyncio.sleep(FLEET_SETTLES)
    return took


async def _replaced(call: Call, old: str, at: float, struck: Struck) -> None:
    """Waits for another voice in the call."""
    until = time.monotonic() + HEARD_WITHIN
    while time.monotonic() < until:
        firsts = {new: call.ears.first_audible(new, since=at) for new in call.identities - {old}}
        if heard := [(first, new) for new, first in firsts.items() if first is not None]:
            first, new = min(heard)
            struck.heard.append((first - at) * 1000)
            struck.overlap += call.overlap(old, new, since=at)
            return
        await asyncio.sleep(0.01)
    struck.lost += 1
