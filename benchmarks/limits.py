"""Limits: one admission against bare EVALSHA, waiting, shares, accuracy and memory."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from statistics import median
from typing import Any

from redis.asyncio import Redis

from benchmarks.rows import Row, Spread
from coordination.coordinator import Coordinator
from coordination.limits.config import LimitsConfig
from coordination.settings import CoordinatorSettings
from coordination.store.store import Store

ROUNDS = 15
PER_ROUND = 150
CALLS = 6000
NOW = timedelta(0)
HUGE = 10**9
SUBJECT = {"tenant": "acme", "model": "large"}
Call = Callable[[], Awaitable[Any]]


def _many(number: int) -> dict[str, Any]:
    """A provider with so many limits, as real accounts have them: two units for all, by model and by tenant."""
    units, scopes = ("requests", "tokens"), ("provider", "model", "tenant")
    every = [(scope, unit) for scope in scopes for unit in units]
    chosen = every[:number]
    return {"limits": {f"{s}-{u}": {"unit": u, "scope": s, "limit": HUGE, "period": 60} for s, u in chosen}}


def limits_config() -> LimitsConfig:
    busy = {"limits": {"few": {"unit": "requests", "limit": 200, "period": 1, "burst": 20}}}
    slow = {"limits": {"few": {"unit": "requests", "limit": 20, "period": 1, "burst": 2}}}
    line = {"limits": {"few": {"unit": "requests", "limit": 20, "period": 1, "burst": 1}}}
    rooms = {"limits": {"each": {"unit": "requests", "limit": 100, "scope": "room", "period": 86400}}}
    tokens = {"limits": {"all": {"unit": "tokens", "limit": HUGE, "period": 60}}}
    named = {"busy": busy, "slow": slow, "line": line, "rooms": rooms, "tokens": tokens}
    providers = {**{f"p{number}": _many(number) for number in (1, 3, 6)}, **named}
    tenants = {"big": {"weight": 3}, "one": {"weight": 1}, "two": {"weight": 1}}
    return LimitsConfig.parse({"providers": providers}, {"tenants": tenants})


async def measure(url: str) -> list[Row]:
    client, config = Redis.from_url(url, socket_timeout=None), limits_config()
    sha: str = await client.script_load("return 1")
    async with (
        Coordinator.open(url, limits=config) as one,
        Coordinator.open(url, settings=CoordinatorSettings(), limits=config) as two,
    ):
        rows = await _latency(client, sha, one)
        rows += await _throughput(one)
        rows.append(await _two_processes(url, one))
        rows.append(await _waiting(client, one, two, "busy", 200, 500, 1.2))
        rows.append(await _waiting(client, one, two, "slow", 20, 50, 1.6))
        rows.append(await _priority(one, two))
        rows += await _shares(one, two)
        rows.append(await _memory(one._store, one))  # pyright: ignore[reportPrivateUsage]
    await client.aclose()
    return rows


def _admission(coordinator: Coordinator, limits: int, tokens: int = 100) -> Call:
    async def admit() -> None:
        await coordinator.limits.reserve(f"p{limits}", requests=1, tokens=tokens, timeout=NOW, **SUBJECT)

    return admit


async def _latency(client: Redis, sha: str, coordinator: Coordinator) -> list[Row]:
    async def bare() -> None:
        await client.evalsha(sha, 0)  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues]

    calls: dict[str, Call] = {
        "EVALSHA": bare,
        "1 limit": _admission(coordinator, 1),
        "3 limits": _admission(coordinator, 3),
        "6 limits": _admission(coordinator, 6),
        "6 limits, cost 1,000": _admission(coordinator, 6, 1000),
        "6 limits, cost 1": _admission(coordinator, 6, 1),
    }
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    singles: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name in random.sample(list(calls), len(calls)):
            took: list[float] = []
            for _ in range(PER_ROUND):
                began = time.perf_counter()
                await calls[name]()
                took.append((time.perf_counter() - began) * 1e6)
            rounds[name].append(median(took))
            singles[name] += took
    targets = {"1 limit": 1.25, "3 limits": None, "6 limits": 1.5}
    rows = [
        _ratio(f"one admission against {n}", t, rounds[n], rounds["EVALSHA"], singles[n]) for n, t in targets.items()
    ]
    large, small = rounds["6 limits, cost 1,000"], rounds["6 limits, cost 1"]
    rows.append(_ratio("cost 1,000 against cost 1", 1.1, large, small, singles["6 limits, cost 1,000"]))
    return rows


def _ratio(name: str, target: float | None, mine: list[float], base: list[float], singles: list[float]) -> Row:
    ratios = sorted(a / b for a, b in zip(mine, base, strict=True))
    ratio = median(ratios)
    return Row(
        name=name,
        target="" if target is None else f"<= {target:g} x",
        measured=f"{ratio:.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f}); {median(mine):.0f} us",
        ok=None if target is None else ratio <= target,
        notes=Spread.of(singles).text("us", digits=0),
    )


async def _repeat(call: Call, many: int) -> None:
    for _ in range(many):
        await call()


async def _throughput(coordinator: Coordinator) -> list[Row]:
    rows: list[Row] = []
    for tasks in (1, 50, 200):
        best = 0.0
        for _ in range(3):
            began = time.perf_counter()
            await _many_admissions(coordinator, tasks)
            best = max(best, CALLS / (time.perf_counter() - began))
        target = 20_000 if tasks == 50 else None
        rows.append(
            Row(
                name=f"admissions against 6 limits, {tasks} tasks",
                target="" if target is None else f">= {target}/s",
                measured=f"{best:.0f}/s",
                ok=None if target is None else best >= target,
            )
        )
    return rows


async def _many_admissions(coordinator: Coordinator, tasks: int) -> None:
    call = _admission(coordinator, 6)
    await asyncio.gather(*(_repeat(call, CALLS // tasks) for _ in range(tasks)))


async def _two_processes(url: str, coordinator: Coordinator) -> Row:
    """This process and another one at the same time. They and the server share the cores of the machine."""
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.limits", url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdin is not None
    assert other.stdout is not None
    await other.stdout.readline()
    began = time.perf_counter()
    other.stdin.write(b"go\n")
    await asyncio.gather(_many_admissions(coordinator, 50), other.stdout.readline())
    took = time.perf_counter() - began
    await other.communicate()
    name = "admissions against 6 limits, 50 tasks in each of 2 processes"
    return Row(name=name, target="", measured=f"{2 * CALLS / took:.0f}/s", ok=None)


async def _second_process(url: str) -> None:
    async with Coordinator.open(url, limits=limits_config()) as coordinator:
        await _many_admissions(coordinator, 50)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await _many_admissions(coordinator, 50)
        print("done", flush=True)


async def _waiting(
    client: Redis, one: Coordinator, two: Coordinator, provider: str, rate: int, many: int, most: float
) -> Row:
    """Redis commands per admission, those of the pump and of looks included, while all wait."""
    await asyncio.gather(*(each.limits.reserve(provider, requests=1) for each in (one, two)))
    await client.config_resetstat()
    asked = [(one, two)[number % 2].limits.reserve(provider, requests=1, timeout=None) for number in range(many)]
    admitted = await asyncio.gather(*asked)
    stats = await client.info("commandstats")
    each = sum(int(count["calls"]) for name, count in stats.items() if "eval" in name) / many
    moments = sorted(one.moment for one in admitted)
    window, limit = 1_000_000, rate + max(rate // 10, 1)
    fullest = max(sum(begin <= moment <= begin + window for moment in moments) for begin in moments)
    return Row(
        name=f"waiting at {rate}/s: commands per admission; most admitted in one second",
        target=f"<= {most:g}; <= {limit}",
        measured=f"{each:.2f}; {fullest}",
        ok=each <= most and fullest <= limit + 1,
    )


async def _priority(one: Coordinator, two: Coordinator) -> Row:
    """A caller of high priority behind a hundred others that wait five seconds."""
    crowd = [
        asyncio.ensure_future((one, two)[n % 2].limits.reserve("line", requests=1, timeout=None)) for n in range(100)
    ]
    await asyncio.sleep(1)
    caller = await two.limits.reserve("line", requests=1, priority=10, timeout=None)
    others = await asyncio.gather(*crowd)
    longest = max(each.waited for each in others)
    return Row(
        name="a caller of high priority, while others wait",
        target="<= 1.2 s where others wait 5",
        measured=f"{caller.waited:.2f} s; the others up to {longest:.1f} s",
        ok=caller.waited <= 1.2,
    )


async def _shares(one: Coordinator, two: Coordinator) -> list[Row]:
    admitted: list[tuple[str, int]] = []

    async def ask(coordinator: Coordinator, tenant: str) -> None:
        while True:
            each = await coordinator.limits.reserve("busy", tenant=tenant, requests=1, timeout=None)
            admitted.append((tenant, each.moment))

    wanted = {"big": 0.6, "one": 0.2, "two": 0.2}
    tasks = [asyncio.create_task(ask(each, name)) for each in (one, two) for name in wanted for _ in range(60)]
    await asyncio.sleep(3.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    end = max(moment for _, moment in admitted)
    recent = Counter(tenant for tenant, moment in admitted if moment > end - 2_000_000)
    shares = {tenant: recent[tenant] / recent.total() for tenant in wanted}
    moments = sorted(moment for _, moment in admitted)
    fullest = max(sum(begin <= moment <= begin + 1_000_000 for moment in moments) for begin in moments)
    off = max(abs(shares[tenant] / share - 1) for tenant, share in wanted.items())
    return [
        Row(
            name="shares of weights 3:1:1 over 2 s",
            target="within 10 %",
            measured=", ".join(f"{share:.1%}" for share in shares.values()) + f"; off by {off:.1%}",
            ok=off <= 0.1,
        ),
        Row(
            name="rate while all ask for more",
            target=">= 95 % of 200/s",
            measured=f"{recent.total() / 2:.0f}/s",
            ok=recent.total() / 2 >= 190,
        ),
        Row(
            name="most reserved in any window of a period, burst a tenth",
            target="<= 1.1 x the limit",
            measured=f"{fullest / 200:.3f} x",
            # A window with both of its ends holds one more.
            ok=fullest <= 221,
        ),
    ]


async def _memory(store: Store, coordinator: Coordinator) -> Row:
    many = 5000
    for number in range(many):
        await coordinator.limits.reserve("rooms", requests=1, room=f"room-{number}")
    key = store.keys.limits("rooms").keys[0]
    size, fields = await store.command("MEMORY", "USAGE", key, "SAMPLES", "0"), await store.command("HLEN", key)
    each = size / fields if fields else 0.0
    return Row(
        name="memory per bucket",
        target="",
        measured=f"{each:.0f} bytes",
        ok=None,
        notes=f"{fields} buckets in one hash",
    )


if __name__ == "__main__":
    asyncio.run(_second_process(sys.argv[1]))
