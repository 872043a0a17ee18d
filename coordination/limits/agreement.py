"""Whether limits and tenants agree: plans exist, parts belong to limits, and guarantees can all be kept at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from coordination.limits.config import REFUSE, Limit, LimitsConfig, Part, Plan
from coordination.limits.units import Scope, Unit

if TYPE_CHECKING:
    from collections.abc import Iterable


def disagreements(config: LimitsConfig, lost: frozenset[str] = frozenset()) -> Iterator[str]:
    """Every fault that only shows when limits and tenants are looked at together, with its place.

    `lost`: places that were left out for faults of their own. What is missing there is there, in truth.
    """
    tenants = config.tenants
    for name, own in tenants.tenants.items():
        if own.plan is not None and own.plan not in tenants.plans and f"plans.{own.plan}" not in lost:
            yield f"tenants: tenants.{name}.plan: there is no plan {own.plan!r}; there is: {_names(tenants.plans)}"
    unknown = tenants.unknown
    if unknown is not None and unknown != REFUSE:
        if unknown not in tenants.plans:
            if f"plans.{unknown}" not in lost:
                yield f"tenants: unknown: there is no plan {unknown!r}; there is: {_names(tenants.plans)}, refuse"
        elif tenants.plans[unknown].guarantees or tenants.plans[unknown].guaranteed_calls:
            yield f"tenants: unknown: plan {unknown!r} guarantees something, which unknown tenants cannot be given"
    for place, plan in _plans(config):
        yield from _parts(config, place, plan, lost)
    yield from _sums(config)
    if "calls" not in lost:
        yield from _calls(config)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _plans(config: LimitsConfig) -> Iterator[tuple[str, Plan]]:
    for name, plan in config.tenants.plans.items():
        yield f"plans.{name}", plan
    for name, tenant in config.tenants.tenants.items():
        yield f"tenants.{name}", tenant


def _parts(config: LimitsConfig, place: str, plan: Plan, lost: frozenset[str]) -> Iterator[str]:
    for kind, parts in (("guarantees", plan.guarantees), ("ceilings", plan.ceilings)):
        for provider, limits in parts.items():
            known = config.limits.providers.get(provider)
            if known is None:
                if f"providers.{provider}" not in lost:
                    yield f"tenants: {place}.{kind}.{provider}: limits.yaml has no such provider"
                continue
            for name, part in limits.items():
                at = f"tenants: {place}.{kind}.{provider}.{name}"
                if f"providers.{provider}.limits.{name}" in lost:
                    continue
                if name not in known.limits:
                    yield f"{at}: the provider has no such limit; it has: {_names(known.limits)}"
                else:
                    yield from _part(at, kind, known.limits[name], part)


def _part(at: str, kind: str, limit: Limit, part: Part) -> Iterator[str]:
    if limit.scope is not Scope.PROVIDER:
        yield f"{at}: it is a part of what all share, but the limit is of scope {limit.scope.value}, not provider"
    if part.limit > limit.limit:
        yield f"{at}: {part.limit} is more than the limit of {limit.limit} itself"
    if limit.unit is Unit.STREAMS and part.burst is not None:
        yield f"{at}: streams have no burst"
    if limit.unit is not Unit.STREAMS and kind == "guarantees" and part.burst_size > limit.burst_size:
        yield f"{at}: a burst of {part.burst_size} is more than the limit's own of {limit.burst_size}"


def _sums(config: LimitsConfig) -> Iterator[str]:
    for provider, known in config.limits.providers.items():
        for name, limit in known.limits.items():
            parts = guarantees(config, provider, name)
            rate, burst = sum(part.limit for part in parts), sum(part.burst_size for part in parts)
            at = f"tenants: the guarantees on {provider}.{name}"
            if rate > limit.limit:
                yield f"{at} add up to {rate}, but the limit is {limit.limit}"
            if limit.unit is not Unit.STREAMS and burst > limit.burst_size:
                yield f"{at} add up to bursts of {burst}, but the limit's burst is {limit.burst_size}"


def guarantees(config: LimitsConfig, provider: str, limit: str) -> list[Part]:
    """What is guaranteed of one limit, to all tenants that are listed."""
    found = (plan.guarantees.get(provider, {}).get(limit) for plan in config.plans_of_tenants.values())
    return [part for part in found if part is not None]


def _calls(config: LimitsConfig) -> Iterator[str]:
    kept = sum(plan.guaranteed_calls or 0 for plan in config.plans_of_tenants.values())
    if not kept:
        return
    if config.limits.calls is None:
        yield "limits: calls: calls are guaranteed to tenants, but there is no limit of all calls to keep them free of"
    elif kept > config.limits.calls.limit:
        yield f"tenants: guaranteed_calls add up to {kept}, but limits.yaml allows {config.limits.calls.limit} calls"
