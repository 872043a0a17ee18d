"""Streams and calls: held on heartbeats, counted once, freed when their process dies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.errors import LimitExceeded
from coordination.limits.config import LimitsConfig
from coordination.store import Store
from tests.store.limited import PROVIDER, configure, passes, streams

BOUND = 20.0


def calls(*coordinators: Coordinator, limit: int | None = None, **tenants: Any) -> None:
    limits = {} if limit is None else {"calls": {"limit": limit}}
    config = LimitsConfig.parse(limits, {"tenants": tenants})
    for coordinator in coordinators:
        coordinator.limits.configure(config)


def heartbeat(coordinator: Coordinator, name: str = PROVIDER) -> Any:
    keys = coordinator._store.keys.limits(name)
    return coordinator.limits._engine.heartbeat(keys)


async def forget_slots(store: Store) -> None:
    """What three seconds without a heartbeat do."""
    for name in await store.command("KEYS", "*:s:*"):
        await store.command("DEL", name)


async def test_a_stream_is_free_when_its_block_ends(coordinator: Coordinator, other: Coordinator) -> None:
    configure(coordinator, other, limits={"open": streams(1)})

    async with coordinator.limits.reserve(PROVIDER, streams=1):
        assert not await passes(other, streams=1)

    assert await passes(other, streams=1)


async def test_a_stream_that_is_held_outlives_its_first_lease(coordinator: Coordinator, other: Coordinator) -> None:
    configure(coordinator, other, limits={"open": streams(1)})

    async with coordinator.limits.reserve(PROVIDER, streams=1) as held:
        await asyncio.sleep(3.5)
        assert not await passes(other, streams=1)
        assert not held.lost.is_set()


async def test_a_process_that_comes_back_has_its_streams_admitted_again(
    coordinator: Coordinator, other: Coordinator, store: Store
) -> None:
    configure(coordinator, other, limits={"open": streams(2)})
    kept = await coordinator.limits.reserve(PROVIDER, streams=1)
    await forget_slots(store)

    await heartbeat(coordinator).beat_once()

    assert not kept.lost.is_set()
    assert [await passes(other, streams=1) for _ in range(2)] == [True, False]


async def test_a_stream_whose_slot_was_taken_meanwhile_is_lost(
    coordinator: Coordinator, other: Coordinator, store: Store
) -> None:
    configure(coordinator, other, limits={"open": streams(1)})
    held = await coordinator.limits.reserve(PROVIDER, streams=1)
    await forget_slots(store)
    await other.limits.reserve(PROVIDER, streams=1)

    await heartbeat(coordinator).beat_once()

    assert held.lost.is_set()


async def test_handoffs_may_use_the_margin(coordinator: Coordinator) -> None:
    configure(coordinator, limits={"open": {"unit": "streams", "limit": 3, "transfer_margin": 1}})

    ordinary = [await passes(coordinator, streams=1) for _ in range(3)]

    assert ordinary == [True, True, False]
    assert await passes(coordinator, streams=1, transfer=True)
    assert not await passes(coordinator, streams=1, transfer=True)


async def test_a_limit_of_streams_that_is_lowered_below_its_use_cuts_nobody_off(coordinator: Coordinator) -> None:
    configure(coordinator, limits={"open": streams(3)})
    held = [await coordinator.limits.reserve(PROVIDER, streams=1) for _ in range(3)]
    configure(coordinator, limits={"open": streams(1)})

    await heartbeat(coordinator).beat_once()
    assert not any(each.lost.is_set() for each in held)
    passed: list[bool] = []
    for each in held:
        passed.append(await passes(coordinator, streams=1))
        await each.close()

    assert passed == [False] * 3
    assert await passes(coordinator, streams=1)


async def test_a_slot_of_a_dead_process_goes_to_the_one_that_waits(
    coordinator: Coordinator, other: Coordinator
) -> None:
    configure(coordinator, other, limits={"open": streams(1)})
    await coordinator.limits.reserve(PROVIDER, streams=1)
    await heartbeat(coordinator).close()

    admitted = await asyncio.wait_for(asyncio.ensure_future(other.limits.reserve(PROVIDER, streams=1)), BOUND)

    assert 1 < admitted.waited < 5


async def test_calls_of_a_tenant_are_limited_over_all_processes(coordinator: Coordinator, other: Coordinator) -> None:
    calls(coordinator, other, acme={"calls": 2})

    await coordinator.limits.call("room-1", tenant="acme")
    await other.limits.call("room-2", tenant="acme")

    with pytest.raises(LimitExceeded, match="'calls'"):
        await coordinator.limits.call("room-3", tenant="acme")
    await coordinator.limits.call("room-3", tenant="another")


async def test_a_call_that_was_admitted_is_never_counted_again(coordinator: Coordinator, other: Coordinator) -> None:
    calls(coordinator, other, limit=1, acme={"calls": 1})
    await coordinator.limits.call("room-1", tenant="acme")

    await other.limits.call("room-1", tenant="acme")

    with pytest.raises(LimitExceeded):
        await other.limits.call("room-2", tenant="acme")


async def test_a_takeover_is_never_refused(coordinator: Coordinator) -> None:
    calls(coordinator, limit=1, acme={"calls": 1})
    await coordinator.limits.call("room-1", tenant="acme")

    await coordinator.limits.call("room-2", tenant="acme", continuing=True)


async def test_a_call_lives_until_its_last_agent_leaves_or_it_ends(
    coordinator: Coordinator, other: Coordinator
) -> None:
    calls(coordinator, other, acme={"calls": 1})
    first = await coordinator.limits.call("room-1", tenant="acme")
    second = await other.limits.call("room-1", tenant="acme")
    await first.close()

    with pytest.raises(LimitExceeded):
        await coordinator.limits.call("room-2", tenant="acme")
    await second.end()

    await coordinator.limits.call("room-2", tenant="acme")


async def test_guaranteed_calls_are_kept_free(coordinator: Coordinator) -> None:
    calls(coordinator, limit=3, vip={"guaranteed_calls": 1})

    for number in range(2):
        await coordinator.limits.call(f"room-{number}", tenant="crowd")
    with pytest.raises(LimitExceeded):
        await coordinator.limits.call("room-9", tenant="crowd")
    await coordinator.limits.call("room-vip", tenant="vip")


async def test_a_call_that_waits_is_told_its_place(coordinator: Coordinator) -> None:
    calls(coordinator, acme={"calls": 1})
    first = await coordinator.limits.call("room-1", tenant="acme")
    places: list[int] = []
    waiting = asyncio.ensure_future(coordinator.limits.call("room-2", tenant="acme", timeout=None))
    await asyncio.sleep(0.05)
    last = asyncio.ensure_future(coordinator.limits.call("room-3", tenant="acme", timeout=None, on_place=places.append))
    await asyncio.sleep(0.05)
    await first.end()
    await (await asyncio.wait_for(waiting, BOUND)).end()
    await asyncio.wait_for(last, BOUND)

    assert places[0] == 2
