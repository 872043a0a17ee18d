"""Admission against a real server: all limits at once, exact waits, settling, refunds and debt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.errors import CostAboveLimit, InvalidArgument, InvalidName, LimitExceeded, UnknownProvider
from coordination.limits.config import LimitsConfig
from coordination.store import Store
from tests.store.limited import NOW, configure, passes, rate


def limit(coordinator: Coordinator, **limits: dict[str, Any]) -> None:
    configure(coordinator, limits=limits)


async def test_a_burst_passes_at_once_and_no_more(coordinator: Coordinator, other: Coordinator) -> None:
    for process in (coordinator, other):
        limit(process, requests=rate(limit=100, burst=7))

    passed = [await passes((coordinator, other)[number % 2], requests=1) for number in range(10)]

    assert passed == [True] * 7 + [False] * 3


async def test_a_refusal_by_one_limit_charges_none(coordinator: Coordinator) -> None:
    limit(coordinator, requests=rate(limit=100, burst=10), tokens=rate("tokens", 1000, burst=100))
    await coordinator.limits.reserve("p", requests=1, tokens=100)

    with pytest.raises(LimitExceeded) as refused:
        await coordinator.limits.reserve("p", requests=1, tokens=50, timeout=NOW)

    assert refused.value.limit == "tokens"
    assert [await passes(coordinator, requests=1) for _ in range(10)] == [True] * 9 + [False]


async def test_a_refusal_names_the_time_after_which_it_passes(coordinator: Coordinator) -> None:
    limit(coordinator, requests={"unit": "requests", "limit": 10, "period": 2, "burst": 1})
    await coordinator.limits.reserve("p", requests=1)

    with pytest.raises(LimitExceeded) as refused:
        await coordinator.limits.reserve("p", requests=1, timeout=NOW)
    early = await passes(coordinator, requests=1)
    await asyncio.sleep(refused.value.retry_after)

    assert 0 < refused.value.retry_after <= 0.2
    assert not early
    assert await passes(coordinator, requests=1)


async def test_a_cost_above_the_burst_passes_when_the_bucket_is_full(coordinator: Coordinator) -> None:
    limit(coordinator, tokens=rate("tokens", 1000, burst=100))

    assert await passes(coordinator, tokens=900)
    assert not await passes(coordinator, tokens=1)


async def test_a_cost_above_the_limit_is_an_error_at_once(coordinator: Coordinator) -> None:
    limit(coordinator, tokens=rate("tokens", 1000))

    with pytest.raises(CostAboveLimit, match="1001"):
        await coordinator.limits.reserve("p", tokens=1001, timeout=None)


@pytest.mark.parametrize("asked", [{"tokens": 0}, {"tokens": -1}, {"tokens": 1.5}, {"tokens": float("nan")}, {}])
async def test_an_amount_that_is_none_is_an_error(coordinator: Coordinator, asked: dict[str, Any]) -> None:
    limit(coordinator, tokens=rate("tokens"))

    with pytest.raises(InvalidArgument):
        await coordinator.limits.reserve("p", **asked)


async def test_an_unknown_provider_is_refused_or_let_through(coordinator: Coordinator) -> None:
    with pytest.raises(UnknownProvider, match="none"):
        await coordinator.limits.reserve("p", requests=1)
    coordinator.limits.configure(LimitsConfig.parse({"unknown_providers": "allow"}))

    assert await passes(coordinator, requests=1)


async def test_what_is_settled_below_the_estimate_is_given_back(coordinator: Coordinator) -> None:
    limit(coordinator, tokens=rate("tokens", 1000, burst=1000))

    async with coordinator.limits.reserve("p", tokens=1000) as reservation:
        reservation.settle(tokens=400)

    assert await passes(coordinator, tokens=600)
    assert not await passes(coordinator, tokens=1)


async def test_what_is_settled_above_the_estimate_becomes_debt(coordinator: Coordinator) -> None:
    limit(coordinator, tokens=rate("tokens", 1000, burst=1000))

    async with coordinator.limits.reserve("p", tokens=100) as reservation:
        reservation.settle(tokens=1500)

    with pytest.raises(LimitExceeded) as refused:
        await coordinator.limits.reserve("p", tokens=1, timeout=NOW)
    assert refused.value.retry_after == pytest.approx(3600 * 0.501, abs=5)


async def test_what_is_not_settled_counts_as_reserved_and_costs_no_call(coordinator: Coordinator) -> None:
    limit(coordinator, tokens=rate("tokens", 1000, burst=1000))

    async with coordinator.limits.reserve("p", tokens=1000):
        pass

    assert not await passes(coordinator, tokens=1)


async def test_a_cancelled_reservation_gives_all_back(coordinator: Coordinator) -> None:
    limit(coordinator, requests=rate(limit=10, burst=1), tokens=rate("tokens", 1000, burst=1000))

    async with coordinator.limits.reserve("p", requests=1, tokens=1000) as reservation:
        reservation.cancel()

    assert await passes(coordinator, requests=1, tokens=1000)


@pytest.mark.parametrize("settled", [{"tokens": -1}, {"characters": 1}])
async def test_a_settlement_that_makes_no_sense_is_refused(coordinator: Coordinator, settled: dict[str, Any]) -> None:
    limit(coordinator, tokens=rate("tokens"))
    reservation = await coordinator.limits.reserve("p", tokens=1)

    with pytest.raises(InvalidArgument):
        reservation.settle(**settled)


async def test_a_settlement_after_the_reservation_ran_out_gives_nothing_back(coordinator: Coordinator) -> None:
    limit(coordinator, tokens=rate("tokens", 1000, burst=1000))
    reservation = await coordinator.limits.reserve("p", tokens=1000)
    reservation._admission = type(reservation._admission)(variant=2, moment=reservation.moment - 301_000_000)
    reservation.cancel()
    await reservation.close()

    assert not await passes(coordinator, tokens=10)


async def test_each_name_of_a_scope_has_a_bucket_of_its_own(coordinator: Coordinator) -> None:
    limit(coordinator, each=rate(limit=1, scope="model"), few=rate(limit=1, scope="tenant", only=["acme"]))

    assert await passes(coordinator, requests=1, model="large")
    assert not await passes(coordinator, requests=1, model="large")
    assert await passes(coordinator, requests=1, model="small", tenant="acme")
    assert not await passes(coordinator, requests=1, model="tiny", tenant="acme")


async def test_a_name_that_a_limit_needs_must_be_given(coordinator: Coordinator) -> None:
    limit(coordinator, each=rate(scope="room"))

    with pytest.raises(InvalidArgument, match="room="):
        await coordinator.limits.reserve("p", requests=1)
    with pytest.raises(InvalidName):
        await coordinator.limits.reserve("p", requests=1, room="a{b}")


async def test_a_limit_that_is_lowered_below_its_use_holds_from_then_on(coordinator: Coordinator) -> None:
    limit(coordinator, tokens=rate("tokens", 1000, burst=1000))
    await coordinator.limits.reserve("p", tokens=900)
    limit(coordinator, tokens=rate("tokens", 100, burst=50))

    with pytest.raises(LimitExceeded) as refused:
        await coordinator.limits.reserve("p", tokens=1, timeout=NOW)
    assert refused.value.retry_after < 3600


async def test_buckets_that_are_full_again_do_not_pile_up(coordinator: Coordinator, store: Store) -> None:
    limit(coordinator, each={"unit": "requests", "limit": 10**6, "period": 1, "scope": "room"})
    for number in range(2000):
        await coordinator.limits.reserve("p", requests=1, room=f"room-{number}")

    (key,) = await store.command("KEYS", "*}:room")
    assert await store.command("HLEN", key) < 400


async def test_a_request_that_is_cancelled_in_flight_leaves_no_charge(coordinator: Coordinator) -> None:
    limit(coordinator, requests=rate(limit=10, burst=1))
    await coordinator.limits.reserve("p", requests=1, tenant="warm-up", timeout=NOW)
    limit(coordinator, other=rate(limit=10, burst=1))
    task = asyncio.ensure_future(coordinator.limits.reserve("p", requests=1, timeout=NOW))
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait([task])

    async with asyncio.timeout(5):
        while not await passes(coordinator, requests=1):
            await asyncio.sleep(0.01)
