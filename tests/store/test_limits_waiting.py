"""Waiting for a part of a limit: order, priorities, bounds, cancels, and what it costs the store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.errors import LimitTimeout
from coordination.store import Store
from tests.store.limited import PROVIDER, configure, passes, rate, streams

BOUND = 20.0


def ask(coordinator: Coordinator, **asked: Any) -> asyncio.Task[Any]:
    asked.setdefault("timeout", None)
    return asyncio.ensure_future(coordinator.limits.reserve(PROVIDER, **asked))


async def waiting(store: Store, many: int) -> None:
    async with asyncio.timeout(BOUND):
        while await store.command("HLEN", store.keys.limits(PROVIDER).keys[1]) != many:
            await asyncio.sleep(0.002)


async def in_order(tasks: dict[str, asyncio.Task[Any]]) -> list[str]:
    """Names in the order of the moments at which the server admitted them."""
    done = await asyncio.wait_for(asyncio.gather(*tasks.values()), BOUND)
    return [name for _, name in sorted(zip((each.moment for each in done), tasks, strict=True))]


async def test_equal_priorities_are_admitted_in_order_of_arrival(
    coordinator: Coordinator, other: Coordinator, store: Store
) -> None:
    configure(coordinator, other, limits={"one": streams(1)})
    held = await coordinator.limits.reserve(PROVIDER, streams=1)
    admitted: list[int] = []

    async def use(number: int) -> None:
        process = (coordinator, other)[number % 2]
        async with process.limits.reserve(PROVIDER, streams=1, timeout=None):
            admitted.append(number)

    tasks: list[asyncio.Task[None]] = []
    for number in range(8):
        tasks.append(asyncio.create_task(use(number)))
        await waiting(store, number + 1)
    await held.close()
    await asyncio.wait_for(asyncio.gather(*tasks), BOUND)

    assert admitted == list(range(8))


async def test_a_larger_priority_goes_first(coordinator: Coordinator, store: Store) -> None:
    configure(coordinator, limits={"few": {"unit": "requests", "limit": 10, "period": 2, "burst": 1}})
    await coordinator.limits.reserve(PROVIDER, requests=1)
    tasks: dict[str, asyncio.Task[Any]] = {}
    for number, priority in enumerate([0, 0, 0, 5, 1]):
        tasks[f"{number}:{priority}"] = ask(coordinator, requests=1, priority=priority)
    order = await in_order(tasks)

    # The first is ahead of the others by less than a quarter of a second, and was told so when it came.
    assert order[0] == "0:0"
    assert order[1:] == ["3:5", "4:1", "1:0", "2:0"]


async def test_a_wait_has_a_bound_and_leaves_nothing(coordinator: Coordinator, store: Store) -> None:
    configure(coordinator, limits={"few": rate(limit=1)})
    await coordinator.limits.reserve(PROVIDER, requests=1)

    with pytest.raises(LimitTimeout, match="'few'") as late:
        await coordinator.limits.reserve(PROVIDER, requests=1, timeout=timedelta(seconds=0.05))

    assert late.value.waited >= 0.05
    await waiting(store, 0)


async def test_a_cancelled_wait_leaves_no_charge(coordinator: Coordinator, store: Store) -> None:
    configure(coordinator, limits={"one": streams(1)})
    held = await coordinator.limits.reserve(PROVIDER, streams=1)
    tasks = [ask(coordinator, streams=1) for _ in range(5)]
    await waiting(store, 5)

    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await waiting(store, 0)
    await held.close()

    assert await passes(coordinator, streams=1)


async def test_an_admission_that_is_cancelled_before_its_moment_is_given_back(coordinator: Coordinator) -> None:
    configure(coordinator, limits={"few": {"unit": "tokens", "limit": 1000, "period": 100, "burst": 1000}})
    await coordinator.limits.reserve(PROVIDER, tokens=1000)
    # A fifth of a second ahead: it is told at once, and waits out the rest by itself.
    soon = ask(coordinator, tokens=2)
    await asyncio.sleep(0.05)
    assert not soon.done()
    soon.cancel()
    await asyncio.wait([soon])

    await asyncio.sleep(0.2)
    assert await passes(coordinator, tokens=2)


async def test_what_needs_another_bucket_is_not_held_up(coordinator: Coordinator, store: Store) -> None:
    configure(coordinator, limits={"each": rate(limit=1, scope="model")})
    await coordinator.limits.reserve(PROVIDER, requests=1, model="large")
    stuck = ask(coordinator, requests=1, model="large")
    await waiting(store, 1)

    assert await passes(coordinator, requests=1, model="small")
    stuck.cancel()
    await asyncio.wait([stuck])
    await waiting(store, 0)


async def test_a_small_request_does_not_overtake_a_large_one_on_the_same_bucket(
    coordinator: Coordinator, store: Store
) -> None:
    configure(coordinator, limits={"tokens": {"unit": "tokens", "limit": 1000, "period": 1, "burst": 500}})
    await coordinator.limits.reserve(PROVIDER, tokens=1000)
    tasks = {"large": ask(coordinator, tokens=500)}
    await waiting(store, 1)
    tasks["small"] = ask(coordinator, tokens=1)

    assert await in_order(tasks) == ["large", "small"]


async def test_many_processes_do_not_poll(coordinator: Coordinator, other: Coordinator, store: Store) -> None:
    """500 requests in 2.5 s: each asks once; the pump and the looks of those who wait add a few."""
    configure(coordinator, other, limits={"few": {"unit": "requests", "limit": 200, "period": 1, "burst": 20}})
    await store.command("CONFIG", "RESETSTAT")

    await asyncio.gather(*(ask((coordinator, other)[number % 2], requests=1) for number in range(500)))

    stats = (await store.command("INFO", "commandstats")).decode()
    calls = sum(int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if "_eval" in line)
    assert calls <= 1.2 * 500


async def test_the_whole_rate_is_used_while_somebody_asks(coordinator: Coordinator, other: Coordinator) -> None:
    configure(coordinator, other, limits={"few": {"unit": "requests", "limit": 100, "period": 1, "burst": 1}})
    tasks = [ask((coordinator, other)[number % 2], requests=1) for number in range(200)]

    moments = sorted(each.moment for each in await asyncio.gather(*tasks))

    # Two seconds at 100/s; a pump that told each of them late would need longer than this machine ever does.
    assert 1.98 < (moments[-1] - moments[0]) / 1e6 < 4


async def test_a_process_that_takes_over_the_pump_admits_those_of_others(
    coordinator: Coordinator, other: Coordinator, store: Store
) -> None:
    configure(coordinator, other, limits={"few": {"unit": "requests", "limit": 2, "period": 6, "burst": 1}})
    await coordinator.limits.reserve(PROVIDER, requests=1)
    first = ask(coordinator, requests=1)
    await waiting(store, 1)
    second = ask(other, requests=1)
    await waiting(store, 2)
    # The process that pumps goes silent, as if it had been killed.
    for queue in coordinator.limits._engine._queues.values():
        queue.close()

    assert (await asyncio.wait_for(second, BOUND)).waited > 1
    first.cancel()
    await asyncio.wait([first])


async def test_those_who_wait_are_queued_again_when_the_server_comes_back_empty(
    coordinator: Coordinator, store: Store
) -> None:
    configure(coordinator, limits={"one": streams(1)})
    held = await coordinator.limits.reserve(PROVIDER, streams=1)
    task = ask(coordinator, streams=1)
    await waiting(store, 1)
    await store.command("FLUSHALL")
    coordinator.limits._engine._restored()

    assert (await asyncio.wait_for(task, BOUND)).tenant == "default"
    await held.close()
