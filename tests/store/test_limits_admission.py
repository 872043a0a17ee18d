"""Admission against a real server: all limits at once, exact waits, settling, refunds and debt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.errors import (
    CostAboveLimit,
    InvalidArgument,
    InvalidName,
    LimitExceeded,
    UnknownProvider,
    UnknownTenant,
)
from coordination.limits.config import LimitsConfig
from coordination.limits.units import Scope, Unit
from coordination.store import Store
from coordination.store.wire import Wire
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


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.PROVIDER])
async def test_every_scope_counts_by_the_names_of_its_own(coordinator: Coordinator, scope: Scope) -> None:
    limit(coordinator, each=rate(limit=1, scope=scope.value))
    names: dict[str, Any] = {"tenant": "t", "model": "m", "room": "r", "role": "o", "caller": "c"}
    others = {name: "other" for name in names if name != scope.value}

    assert await passes(coordinator, requests=1, **names)
    assert not await passes(coordinator, requests=1, **{**others, scope.value: names[scope.value]})
    assert await passes(coordinator, requests=1, **{**names, scope.value: "another"})


@pytest.mark.parametrize(
    ("unit", "cost", "passing"),
    [(Unit.REQUESTS, 1, 3), (Unit.TOKENS, 40, 2), (Unit.CHARACTERS, 33, 3), (Unit.AUDIO_SECONDS, 33.3, 3)],
)
async def test_every_unit_is_counted_as_it_is_named(
    coordinator: Coordinator, unit: Unit, cost: float, passing: int
) -> None:
    size = 3 if unit is Unit.REQUESTS else 100
    limit(coordinator, some=rate(unit.value, size, burst=size))

    passed = [await passes(coordinator, **{unit.value: cost}) for _ in range(4)]

    assert passed == [True] * passing + [False] * (4 - passing)


async def test_a_tenant_that_is_not_listed_has_the_plan_for_that_or_is_refused(coordinator: Coordinator) -> None:
    limits = {"providers": {"p": {"limits": {"all": rate(limit=100, burst=50)}}}}
    ceiling = {"ceilings": {"p": {"all": {"limit": 2, "burst": 2}}}}

    for unknown, passing in (("small", 2), (None, 3)):
        tenants = {"plans": {"small": ceiling}, "unknown": unknown}
        coordinator.limits.configure(LimitsConfig.parse(limits, tenants))
        passed = [await passes(coordinator, tenant=f"new-{unknown}", requests=1) for _ in range(3)]
        assert passed == [True] * passing + [False] * (3 - passing)
    coordinator.limits.configure(LimitsConfig.parse(limits, {"unknown": "refuse"}))

    with pytest.raises(UnknownTenant, match="new"):
        await coordinator.limits.reserve("p", tenant="new", requests=1)
    with pytest.raises(UnknownTenant):
        await coordinator.limits.call("room", tenant="new")


async def test_calls_of_the_same_moment_leave_together(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone call is written at once; of many, the first one is, and the others in one piece behind it."""
    limit(coordinator, all=rate(limit=1000, burst=1000))
    await coordinator.limits.reserve("p", requests=1, timeout=NOW)
    writes: list[int] = []
    write = Wire.write

    def counted(wire: Wire, data: bytes) -> None:
        if many := data.count(b"EVALSHA"):
            writes.append(many)
        write(wire, data)

    monkeypatch.setattr(Wire, "write", counted)
    await asyncio.gather(*(coordinator.limits.reserve("p", requests=1, timeout=NOW) for _ in range(50)))

    # A heartbeat can fall into that moment.
    assert (writes[0], sum(writes) - 50 in (0, 1), len(writes) <= 3) == (1, True, True)


async def test_metrics_are_by_provider_and_limit_and_never_by_tenant(coordinator: Coordinator) -> None:
    from prometheus_client import REGISTRY

    limit(coordinator, few=rate(limit=10, burst=1))
    await coordinator.limits.reserve("p", requests=1, tenant="secret", room="secret")
    before = REGISTRY.get_sample_value("baton_limit_admissions_total", {"provider": "p"})
    refused = REGISTRY.get_sample_value("baton_limit_refusals_total", {"provider": "p", "limit": "few"}) or 0
    limit(coordinator, few=rate(limit=10, burst=10))
    await coordinator.limits.reserve("p", requests=1, tenant="secret", caller="secret")
    limit(coordinator, few=rate(limit=10, burst=1))
    assert not await passes(coordinator, requests=9, tenant="secret")

    assert before is not None
    assert REGISTRY.get_sample_value("baton_limit_admissions_total", {"provider": "p"}) == before + 1
    assert REGISTRY.get_sample_value("baton_limit_refusals_total", {"provider": "p", "limit": "few"}) == refused + 1
    samples = [each for metric in REGISTRY.collect() if "baton_limit" in metric.name for each in metric.samples]
    assert {label for each in samples for label in each.labels} <= {"provider", "limit", "le"}
    assert "secret" not in {value for each in samples for value in each.labels.values()}


async def test_names_are_taken_as_they_are(coordinator: Coordinator) -> None:
    limit(coordinator, each=rate(limit=1, scope="room"), all=rate(limit=9, burst=9))

    for name in ("100 %", "%d", "$5", "ä/ö"):
        assert await passes(coordinator, requests=1, room=name, tenant="50 %b")
        assert not await passes(coordinator, requests=1, room=name, tenant="50 %b")


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

    assert await store.command("HLEN", store.keys.limits("p").keys[0]) < 400


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
