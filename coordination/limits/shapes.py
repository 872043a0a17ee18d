"""Turns configuration into the checks of one kind of request, and remembers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from coordination.errors import InvalidArgument, TenantBlocked, UnknownProvider, UnknownTenant
from coordination.ids import check_name
from coordination.limits.agreement import guarantees
from coordination.limits.buckets import Check, Rate, Shape, Slots
from coordination.limits.config import CALLS, Limit, LimitsConfig, Part, Provider, RedisAway, Tenant
from coordination.limits.config import UnknownProvider as Policy
from coordination.limits.units import Scope, Unit


class Subject(NamedTuple):
    """Who asks: names for the scopes."""

    provider: str
    tenant: str
    model: str | None = None
    room: str | None = None
    role: str | None = None
    caller: str | None = None
    transfer: bool = False
    """A handoff or takeover of a call that was admitted: it may use what is kept for them."""

    def name(self, scope: Scope) -> str | None:
        return "" if scope is Scope.PROVIDER else getattr(self, scope.value)


class Shapes:
    """The checks of a configuration. Made anew when the configuration changes."""

    def __init__(self, config: LimitsConfig, blocked: Mapping[str, str] = MappingProxyType({})) -> None:
        self.config = config
        self._blocked = blocked
        # Rooms and callers come and go: the oldest are forgotten.
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, subject: Subject, units: tuple[Unit, ...]) -> Shape:
        """The checks of a kind of request.

        Raises `UnknownProvider`, `UnknownTenant`, `TenantBlocked`, `InvalidName`, `InvalidArgument` for a limit whose
        scope the subject does not name.
        """
        tenant = self._tenant(subject.tenant)
        provider = self._provider(subject)
        ordinary: list[Check] = []
        guaranteed: list[Check] | None = []
        for name, limit in provider.limits.items():
            if limit.unit not in units:
                continue
            own = self._name(subject, name, limit)
            if own is None:
                continue
            parts = _Parts.of(self.config, tenant, subject, name)
            ordinary += _ordinary(name, limit, own, parts, subject)
            if guaranteed is not None:
                more = _guaranteed(name, limit, own, parts, subject)
                guaranteed = None if more is None else guaranteed + more
        shared = any(_is_guarantee(check) for check in guaranteed or ())
        return Shape(
            provider=subject.provider,
            tenant=subject.tenant,
            weight=tenant.weight,
            guaranteed=tuple(guaranteed or ()) if shared else (),
            ordinary=tuple(replace(check, away=provider.away(check.limit)) for check in ordinary),
            names=tuple(check.limit for check in ordinary),
        )

    def calls(self, tenant: str, *, continuing: bool) -> Shape:
        """The checks of a call. One that is continued (a handoff, a takeover) is always admitted."""
        plan, calls = self._tenant(tenant), self.config.limits.calls
        kept = sum(each.guaranteed_calls or 0 for each in self.config.plans_of_tenants.values())
        own: list[Check] = [] if plan.calls is None else [_slots(f"ceiling/{tenant}", plan.calls)]
        every: list[Check] = [] if calls is None else [_slots("", calls.limit)]
        pool: list[Check] = [] if calls is None or not kept else [_slots("pool", calls.limit - kept)]
        away = RedisAway.FAIL_OPEN if calls is None else calls.redis_away
        guaranteed = [_slots(f"guarantee/{tenant}", plan.guaranteed_calls)] if plan.guaranteed_calls else []
        shape = Shape(
            provider=CALLS,
            tenant=tenant,
            weight=plan.weight,
            guaranteed=tuple(every + guaranteed + own) if guaranteed else (),
            ordinary=tuple(replace(check, away=away) for check in every + pool + own),
            names=(CALLS,) * 3,
        )
        return shape.unbounded() if continuing else shape

    def of_account(self, subject: Subject) -> Iterator[Rate]:
        """The buckets that a provider's own account can be held against: those of all, and of the model.

        Raises `UnknownProvider`.
        """
        provider = self._provider(subject)
        for name, limit in provider.limits.items():
            own = subject.name(limit.scope) if limit.scope in (Scope.PROVIDER, Scope.MODEL) else None
            if limit.unit is not Unit.STREAMS and own is not None and (not limit.only or own in limit.only):
                yield _rate(name, limit, own)

    def shared(self, provider: str) -> list[Check]:
        """What all share of a provider, whole. Raises `UnknownProvider`."""
        if provider == CALLS:
            calls = self.config.limits.calls
            return [] if calls is None else [_slots("", calls.limit)]
        subject = Subject(provider=provider, tenant="", transfer=True)
        found = self._provider(subject).limits.items()
        shared = [(name, limit) for name, limit in found if limit.scope is Scope.PROVIDER]
        return [
            Slots(limit=name, set=f"s:{name}/", most=limit.limit)
            if limit.unit is Unit.STREAMS
            else _rate(name, limit, "")
            for name, limit in shared
        ]

    def _provider(self, subject: Subject) -> Provider:
        provider = self.config.limits.providers.get(subject.provider)
        if provider is not None:
            return provider
        if self.config.limits.unknown_providers is Policy.REFUSE:
            raise UnknownProvider(subject.provider, tuple(self.config.limits.providers))
        return Provider.model_construct(limits={})

    def _tenant(self, name: str) -> Tenant:
        check_name(name, "tenant")
        if name in self._blocked:
            raise TenantBlocked(name, self._blocked[name])
        plan = self.config.plan(name)
        if plan is None:
            raise UnknownTenant(name)
        if plan.blocked:
            raise TenantBlocked(name, "blocked in the configuration")
        return plan

    def _name(self, subject: Subject, name: str, limit: Limit) -> str | None:
        own = subject.name(limit.scope)
        if own is None:
            raise InvalidArgument(
                f"The limit {name!r} of {subject.provider} counts by {limit.scope.value}: "
                f"reserve(…, {limit.scope.value}=…) has to name it."
            )
        if limit.scope is not Scope.PROVIDER:
            check_name(own, limit.scope.value)
        return None if limit.only and own not in limit.only else own


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What tenants have of one limit."""

    guarantee: Part | None
    ceiling: Part | None
    kept: int
    """Bursts (or slots) that are guaranteed to all tenants together."""

    @classmethod
    def of(cls, config: LimitsConfig, tenant: Tenant, subject: Subject, limit: str) -> _Parts:
        parts = guarantees(config, subject.provider, limit)
        slots = config.limits.providers[subject.provider].limits[limit].unit is Unit.STREAMS
        return cls(
            guarantee=tenant.guarantees.get(subject.provider, {}).get(limit),
            ceiling=tenant.ceilings.get(subject.provider, {}).get(limit),
            kept=sum(part.limit if slots else part.burst_size for part in parts),
        )


def _slots(name: str, most: int) -> Slots:
    return Slots(limit=CALLS, set=f"s:{CALLS}/{name}", most=most)


def _ordinary(name: str, limit: Limit, own: str, parts: _Parts, subject: Subject) -> list[Check]:
    checks: list[Check] = []
    if limit.unit is Unit.STREAMS:
        free = limit.limit if subject.transfer else limit.limit - limit.margin
        checks.append(Slots(limit=name, set=f"s:{name}/{own}", most=free))
        if parts.kept and not limit.lend:
            checks.append(Slots(limit=name, set=f"s:{name}/pool", most=max(free - parts.kept, 0)))
    else:
        checks.append(_rate(name, limit, own, kept=parts.kept))
    return checks + _ceiling(name, limit, parts, subject)


def _guaranteed(name: str, limit: Limit, own: str, parts: _Parts, subject: Subject) -> list[Check] | None:
    """The checks of a limit within the tenant's guarantee; None if it has none on something that all share."""
    if limit.scope is not Scope.PROVIDER:
        return _ordinary(name, limit, own, parts, subject)
    part = parts.guarantee
    if part is None:
        return None
    checks: list[Check]
    if limit.unit is Unit.STREAMS:
        checks = [
            Slots(limit=name, set=f"s:{name}/", most=limit.limit),
            Slots(limit=name, set=f"s:{name}/guarantee/{subject.tenant}", most=part.limit),
        ]
    else:
        checks = [_rate(name, limit, own), _part(name, limit, "guarantee", part, subject)]
    return checks + _ceiling(name, limit, parts, subject)


def _rate(name: str, limit: Limit, own: str, *, kept: int = 0) -> Rate:
    return Rate.of(
        name,
        limit.unit,
        (limit.scope.value, f"{name}/{own}"),
        amount=limit.limit,
        burst=limit.burst_size,
        period=limit.period,
        kept=kept,
    )


def _part(name: str, limit: Limit, kind: str, part: Part, subject: Subject) -> Rate:
    bucket = (kind, f"{name}/{subject.tenant}")
    return Rate.of(name, limit.unit, bucket, amount=part.limit, burst=part.burst_size, period=limit.period)


def _ceiling(name: str, limit: Limit, parts: _Parts, subject: Subject) -> list[Check]:
    if parts.ceiling is None:
        return []
    if limit.unit is Unit.STREAMS:
        return [Slots(limit=name, set=f"s:{name}/ceiling/{subject.tenant}", most=parts.ceiling.limit)]
    return [_part(name, limit, "ceiling", parts.ceiling, subject)]


def _is_guarantee(check: Check) -> bool:
    return check.kind == "guarantee" if isinstance(check, Rate) else "/guarantee/" in check.set
