"""What a provider says of its own budget counts for every process."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from coordination.coordinator import Coordinator
from coordination.errors import InvalidArgument, LimitExceeded
from tests.store.limited import NOW, PROVIDER, configure, passes, rate

LIMITS = {"requests": rate(limit=100, burst=50), "tokens": rate("tokens", 1000, burst=1000)}


async def test_retry_after_closes_the_bucket_for_all(coordinator: Coordinator, other: Coordinator) -> None:
    configure(coordinator, other, limits=LIMITS)

    await coordinator.limits.feedback(PROVIDER, retry_after=timedelta(seconds=7))

    with pytest.raises(LimitExceeded) as refused:
        await other.limits.reserve(PROVIDER, requests=1, timeout=NOW)
    assert refused.value.retry_after == pytest.approx(7, abs=0.5)


async def test_after_that_time_requests_come_back_one_by_one(coordinator: Coordinator) -> None:
    configure(coordinator, limits={"requests": {"unit": "requests", "limit": 20, "period": 1, "burst": 20}})

    await coordinator.limits.feedback(PROVIDER, retry_after=timedelta(seconds=0.3))
    back = await asyncio.gather(*(coordinator.limits.reserve(PROVIDER, requests=1) for _ in range(10)))

    moments = sorted(each.moment for each in back)
    # Ten at 20/s, the first late by what this machine is.
    assert moments[-1] - moments[0] >= 350_000


async def test_it_closes_only_the_units_that_are_named(coordinator: Coordinator) -> None:
    configure(coordinator, limits=LIMITS)

    await coordinator.limits.feedback(PROVIDER, retry_after=timedelta(seconds=7), units=("tokens",))

    assert await passes(coordinator, requests=1)
    assert not await passes(coordinator, tokens=1)


async def test_a_remaining_quota_takes_the_bucket_down_to_it(coordinator: Coordinator, other: Coordinator) -> None:
    configure(coordinator, other, limits=LIMITS)

    await coordinator.limits.feedback(PROVIDER, remaining={"requests": 3})

    assert [await passes(other, requests=1) for _ in range(5)] == [True] * 3 + [False] * 2


async def test_feedback_never_gives_anything(coordinator: Coordinator) -> None:
    configure(coordinator, limits=LIMITS)
    await coordinator.limits.reserve(PROVIDER, tokens=1000)

    await coordinator.limits.feedback(PROVIDER, remaining={"tokens": 900})

    assert not await passes(coordinator, tokens=100)


async def test_what_is_given_back_does_not_open_what_the_provider_closed(
    coordinator: Coordinator, other: Coordinator
) -> None:
    configure(coordinator, other, limits={"requests": {"unit": "requests", "limit": 100, "period": 10, "burst": 100}})
    early = [await coordinator.limits.reserve(PROVIDER, requests=30) for _ in range(3)]

    await other.limits.feedback(PROVIDER, retry_after=timedelta(seconds=1))
    for each in early:
        each.cancel()
        await each.close()

    with pytest.raises(LimitExceeded) as refused:
        await other.limits.reserve(PROVIDER, requests=1, timeout=NOW)
    assert refused.value.retry_after == pytest.approx(1, abs=0.3)


async def test_what_is_taken_later_is_given_back_as_ever(coordinator: Coordinator) -> None:
    configure(coordinator, limits=LIMITS)
    await coordinator.limits.feedback(PROVIDER, remaining={"requests": 3})

    async with coordinator.limits.reserve(PROVIDER, requests=3) as reservation:
        reservation.cancel()

    assert [await passes(coordinator, requests=1) for _ in range(4)] == [True] * 3 + [False]


async def test_a_model_of_its_own_is_closed_alone(coordinator: Coordinator) -> None:
    configure(coordinator, limits={"each": rate(limit=10, scope="model")})

    await coordinator.limits.feedback(PROVIDER, model="large", retry_after=timedelta(seconds=7))

    assert not await passes(coordinator, requests=1, model="large")
    assert await passes(coordinator, requests=1, model="small")


async def test_what_makes_no_sense_is_refused(coordinator: Coordinator) -> None:
    configure(coordinator, limits=LIMITS)

    with pytest.raises(InvalidArgument):
        await coordinator.limits.feedback(PROVIDER, remaining={"apples": 1})
    with pytest.raises(InvalidArgument):
        await coordinator.limits.feedback(PROVIDER, retry_after=timedelta(seconds=-1))
