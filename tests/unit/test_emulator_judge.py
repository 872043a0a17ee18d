"""The judge is exact: what it allows in any window, when it says to come back, and what it adds up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordination.testing.emulators.judge import Charge, Judge, Quota, Refusal

PERIOD = timedelta(seconds=10)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def judge(**quota: float) -> tuple[Judge, Clock]:
    clock = Clock()
    return Judge(Quota(period=PERIOD, **quota), clock=clock), clock  # type: ignore[arg-type]


@given(steps=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 7)), max_size=40))
def test_no_window_ever_holds_more_than_the_quota(steps: list[tuple[int, int]]) -> None:
    strict, clock = judge(tokens=12)
    for wait, amount in steps:
        clock.now += wait
        strict.admit("key", {"tokens": amount})

    times = [entry.at for entry in strict.log]
    for end in times:
        inside = sum(e.amounts["tokens"] for e in strict.log if end - 10 < e.at <= end)
        assert inside <= 12
    assert strict.peak("tokens") <= 12


@given(steps=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 7)), min_size=1, max_size=40))
def test_who_comes_back_when_told_is_served_and_not_a_moment_before(steps: list[tuple[int, int]]) -> None:
    strict, clock = judge(tokens=12)
    for wait, amount in steps:
        clock.now += wait
        answer = strict.admit("key", {"tokens": amount})
        if isinstance(answer, Refusal):
            told = clock.now + answer.retry_after.total_seconds()
            clock.now = told - 0.001
            assert isinstance(strict.admit("key", {"tokens": amount}), Refusal)
            clock.now = told
            assert isinstance(strict.admit("key", {"tokens": amount}), Charge)


def test_all_units_are_charged_or_none() -> None:
    strict, _ = judge(requests=5, tokens=10)
    strict.admit("key", {"requests": 1, "tokens": 8})

    refusal = strict.admit("key", {"requests": 1, "tokens": 8})

    assert isinstance(refusal, Refusal)
    assert refusal.unit == "tokens"
    assert strict.total("requests") == 1


def test_a_strict_judge_refuses_before_the_promised_quota() -> None:
    strict, _ = judge(requests=10, strictness=0.85)

    served = [isinstance(strict.admit("key", {"requests": 1}), Charge) for _ in range(10)]

    assert served.count(True) == 8


def test_what_was_amended_is_what_counts() -> None:
    strict, _ = judge(tokens=10)
    entry = strict.admit("key", {"tokens": 9})
    assert isinstance(entry, Charge)
    entry.amend("tokens", 2)

    assert strict.total("tokens") == 2
    assert strict.remaining("tokens") == pytest.approx(8)
    assert isinstance(strict.admit("key", {"tokens": 8}), Charge)


def test_streams_count_until_they_are_closed() -> None:
    strict, _ = judge(streams=1)
    strict.admit("key", {}, stream=True)
    refused = strict.admit("key", {}, stream=True)
    strict.close_stream()

    assert isinstance(refused, Refusal)
    assert refused.unit == "streams"
    assert isinstance(strict.admit("key", {}, stream=True), Charge)
    assert strict.peak_streams == 1
