"""Configuration of limits: all faults at once, each with its place; plans as templates; exact arithmetic."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordination.errors import InvalidSettings
from coordination.limits.buckets import HORIZON, Rate, Shape
from coordination.limits.config import LimitsConfig
from coordination.limits.files import load_limits
from coordination.limits.units import FINEST, Unit

ROOT = Path(__file__).parents[2]
TOKENS = {"unit": "tokens", "limit": 1000, "burst": 200}


def limits(**named: dict[str, Any]) -> dict[str, Any]:
    return {"providers": {"p": {"limits": named}}}


def rate_of(limit: int, period: timedelta, burst: int = 1) -> Rate:
    return Rate.of("l", Unit.TOKENS, ("provider", "l/"), amount=limit, burst=burst, period=period)


def test_the_files_of_the_reference_application_are_without_faults() -> None:
    found = load_limits(ROOT / "config/limits.yaml", ROOT / "config/tenants.yaml")

    assert set(found.limits.providers) == {"openai", "deepgram", "elevenlabs"}
    plan = found.plan("somebody new")
    assert plan is not None
    assert plan.calls == 5


def test_all_faults_of_both_files_are_listed_with_their_places() -> None:
    with pytest.raises(InvalidSettings) as fault:
        LimitsConfig.parse(
            {"providers": {"p": {"limits": {"a": {"unit": "apples", "limit": 0}, "b": {"unit": "tokens"}}}}, "x": 1},
            {"plans": {"free": {"weight": -1}}, "tenants": {"acme": {"colour": "red"}}},
        )

    places = ("p.limits.a.unit", "p.limits.a.limit", "p.limits.b.limit", "x", "free.weight", "acme.colour")
    assert [place for place in places if place not in str(fault.value)] == []
    assert "6 faults" in str(fault.value)


def test_what_a_faulty_part_has_to_do_with_others_does_not_hide_their_faults() -> None:
    """One run tells all there is to tell, and nothing that is only said because a faulty part was left out."""
    with pytest.raises(InvalidSettings) as fault:
        LimitsConfig.parse(
            {
                "providers": {
                    "p": {"limits": {"a": {"unit": "apples", "limit": 1}, "t": TOKENS}},
                    "q": {"limits": {"t": {"unit": "tokens"}}},
                }
            },
            {
                "plans": {"free": {"weight": -1}, "bad": {"calls": 0}},
                "tenants": {
                    "acme": {"plan": "free", "guarantees": {"p": {"t": {"limit": 2000}, "a": {"limit": 1}}}},
                    "beta": {"plan": "none", "guarantees": {"q": {"t": {"limit": 1}}}, "colour": "red"},
                },
                "unknown": "bad",
            },
        )

    told = str(fault.value)
    places = ("p.limits.a.unit", "q.limits.t.limit", "free.weight", "bad.calls", "beta.colour")
    assert [place for place in places if place not in told] == []
    assert "no plan 'none'" in told
    assert "2000 is more than the limit of 1000" in told
    assert not any(wrong in told for wrong in ("no such", "no plan 'free'", "no plan 'bad'"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"unit": "streams", "limit": 5, "period": 60}, "leave out period"),
        ({"unit": "tokens", "limit": 5, "burst": 6}, "more than the limit"),
        ({"unit": "tokens", "limit": 5, "lend": True}, "for streams only"),
        ({"unit": "streams", "limit": 2, "transfer_margin": 2}, "less than the limit"),
        ({"unit": "tokens", "limit": 5, "only": ["x"]}, "scope provider"),
        ({"unit": "tokens", "limit": True}, "integer"),
        ({"unit": "tokens", "limit": 5, "period": 0}, "period"),
    ],
)
def test_a_limit_that_makes_no_sense_is_a_fault(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSettings, match=told):
        LimitsConfig.parse(limits(a=wrong))


@pytest.mark.parametrize(
    ("tenants", "told"),
    [
        ({"tenants": {"acme": {"plan": "gold"}}}, "no plan 'gold'"),
        ({"unknown": "gold"}, "no plan 'gold'"),
        ({"tenants": {"a": {"guarantees": {"q": {"t": {"limit": 1}}}}}}, "no such provider"),
        ({"tenants": {"a": {"guarantees": {"p": {"x": {"limit": 1}}}}}}, "no such limit"),
        ({"tenants": {"a": {"guarantees": {"p": {"t": {"limit": 2000}}}}}}, "more than the limit of 1000"),
        (
            {"tenants": {name: {"guarantees": {"p": {"t": {"limit": 600, "burst": 10}}}} for name in "ab"}},
            "add up to 1200",
        ),
        (
            {"tenants": {name: {"guarantees": {"p": {"t": {"limit": 400, "burst": 150}}}} for name in "ab"}},
            "bursts of 300",
        ),
        (
            {"plans": {"g": {"guarantees": {"p": {"t": {"limit": 1}}}}}, "unknown": "g"},
            "unknown tenants cannot be given",
        ),
        ({"tenants": {"a": {"guaranteed_calls": 3}}}, "no limit of all calls"),
    ],
)
def test_tenants_that_do_not_fit_the_limits_are_a_fault(tenants: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSettings, match=told):
        LimitsConfig.parse(limits(t=TOKENS), tenants)


def test_a_tenant_has_its_plan_and_what_is_different() -> None:
    config = LimitsConfig.parse(
        {}, {"plans": {"pro": {"weight": 3, "calls": 9}}, "tenants": {"a": {"plan": "pro", "calls": 2}}}
    )

    plan = config.plan("a")

    assert plan is not None
    assert (plan.weight, plan.calls) == (3, 2)


def test_malformed_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    one, two = tmp_path / "limits.yaml", tmp_path / "tenants.yaml"
    one.write_text("providers:\n  p: [\n")
    two.write_text("- a\n")

    with pytest.raises(InvalidSettings) as fault:
        load_limits(one, two)

    assert "limits.yaml, line" in str(fault.value)
    assert "tenants.yaml: it must hold a mapping" in str(fault.value)


def test_a_file_that_is_no_yaml_does_not_hide_the_faults_of_the_other(tmp_path: Path) -> None:
    one, two = tmp_path / "limits.yaml", tmp_path / "tenants.yaml"
    one.write_text("providers: [")
    two.write_text("plans: {free: {weight: -1}}\ntenants: {acme: {guarantees: {p: {t: {limit: 1}}}}}")

    with pytest.raises(InvalidSettings) as fault:
        load_limits(one, two)

    assert len(fault.value.faults) == 2
    assert "plans.free.weight" in fault.value.faults[1]


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"limits.yaml cannot be read"):
        load_limits(tmp_path / "limits.yaml")


@given(
    limit=st.integers(1, 10**12),
    period=st.timedeltas(timedelta(milliseconds=10), timedelta(days=1)),
    cost=st.integers(1, 10**12),
)
def test_an_interval_is_exact_to_a_microsecond_and_never_short(limit: int, period: timedelta, cost: int) -> None:
    rate = rate_of(limit, period)
    us = period // timedelta(microseconds=1)

    interval = rate.interval(cost * FINEST)

    assert 0 <= interval * limit - cost * us < limit


def test_seven_million_tokens_a_minute_are_not_off_by_a_rounded_interval() -> None:
    rate = rate_of(7_000_000, timedelta(minutes=1))

    assert rate.interval(7_000_000 * FINEST) == 60_000_000
    assert rate.interval(1000 * FINEST) == 8572


@pytest.mark.parametrize("cost", [1, 10, 40])
def test_what_is_kept_in_stock_is_not_told_ahead(cost: int) -> None:
    bucket = ("provider", "l/")
    rate = Rate.of("l", Unit.TOKENS, bucket, amount=100, burst=100, period=timedelta(seconds=1), kept=60)
    shape = Shape(provider="p", tenant="t", weight=1, guaranteed=(), ordinary=(rate,), names=("l",))

    _, horizon, checks = shape.prepared({Unit.TOKENS: cost * FINEST}, "")
    interval, slack = int(checks[-2]), int(checks[-1])

    # 40 of 100 a second are free: what a request takes, and the moment to which it is told ahead, stay within them.
    assert horizon == min(HORIZON, 400_000 - interval)
    assert horizon + max(slack, interval) == 400_000
