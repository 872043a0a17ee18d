"""The typed schemas of limits and tenants. Files in these forms are `config/limits.yaml` and `config/tenants.yaml`.

A configuration is checked as a whole, `LimitsConfig.parse` lists all faults at once, each with its place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from coordination.errors import CoordinationError
from coordination.ids import check_name
from coordination.limits.faults import checked, fault_text, faulty
from coordination.limits.units import Scope, Unit

logger = logging.getLogger("coordination.limits")

CALLS: Final = "calls"
"""The name under which calls per tenant are limited; no provider can have it."""
REFUSE: Final = "refuse"


class RedisAway(StrEnum):
    """What holds while Redis cannot be reached."""

    FAIL_OPEN = "fail_open"
    """Everything passes; the limit does not hold."""
    FAIL_CLOSED = "fail_closed"
    """Nothing passes."""
    LOCAL_SHARE = "local_share"
    """Each process has its part of the limit, by the number of processes as last known, and at least one request per
    period; the limit holds about."""


def _name(value: str) -> str:
    try:
        check_name(value, "limit, provider, plan or tenant")
    except CoordinationError as error:
        raise ValueError(str(error)) from None
    if "/" in value:
        raise ValueError("a name may not hold a slash")
    return value


def _seconds(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    return value


Name = Annotated[str, AfterValidator(_name)]
Amount = Annotated[int, Field(gt=0, le=10**12, strict=True)]
Period = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta(milliseconds=10), le=timedelta(days=1))]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Strict):
    """One limit of a provider. Durations are seconds."""

    unit: Unit
    scope: Scope = Scope.PROVIDER
    limit: Amount
    """Units per period; for streams, how many may be open at once."""
    period: Period = timedelta(minutes=1)
    burst: Amount | None = None
    """How much may come at one moment; by default a tenth of the limit, and at least 1. What is taken in any window is
    at most the limit plus the larger of this and the largest single request."""
    only: tuple[Name, ...] = ()
    """The models, tenants, roles … that it is for; empty: each one, with a bucket of its own."""
    redis_away: RedisAway | None = None
    """By default the provider's."""
    transfer_margin: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Streams only: how many are kept for handoffs and takeovers; by default a twentieth, at least 1, none of one."""
    lend: bool = False
    """Streams only: others may use what is guaranteed to a tenant, which gets it back as their streams end."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.unit is Unit.STREAMS:
            if {"period", "burst"} & self.model_fields_set:
                raise ValueError("streams are held, not used up: leave out period and burst")
            if self.transfer_margin is not None and self.transfer_margin >= self.limit:
                raise ValueError("transfer_margin must be less than the limit")
        elif {"transfer_margin", "lend"} & self.model_fields_set:
            raise ValueError("transfer_margin and lend are for streams only")
        if self.burst is not None and self.burst > self.limit:
            raise ValueError(f"burst {self.burst} is more than the limit {self.limit}")
        if self.only and self.scope is Scope.PROVIDER:
            raise ValueError("only is for the other scopes: scope provider counts everybody")
        return self

    def with_values(self, values: Mapping[str, Any]) -> Limit:
        """The limit with what is different; a burst or margin that is then too large is cut.

        Raises `ValidationError`.
        """
        merged = {**self.model_dump(exclude_unset=True), **values}
        size = merged.get("limit")
        if isinstance(size, int):
            if "burst" not in values and self.burst is not None:
                merged["burst"] = max(min(self.burst, size), 1)
            if "transfer_margin" not in values and self.transfer_margin is not None:
                merged["transfer_margin"] = max(min(self.transfer_margin, size - 1), 0)
        return Limit.model_validate(merged)

    @property
    def burst_size(self) -> int:
        return self.burst or max(self.limit // 10, 1)

    @property
    def margin(self) -> int:
        """How many streams are kept for handoffs and takeovers."""
        if self.transfer_margin is not None:
            return self.transfer_margin
        return 0 if self.limit == 1 else max(self.limit // 20, 1)


class Provider(_Strict):
    """A provider and its limits; all of them are checked in one admission."""

    limits: Annotated[dict[Name, Limit], Field(min_length=1)]
    redis_away: RedisAway = RedisAway.LOCAL_SHARE

    def away(self, limit: str) -> RedisAway:
        return self.limits[limit].redis_away or self.redis_away


class Calls(_Strict):
    """How many calls there may be at once, over all tenants; a plan says how many of each."""

    limit: Amount
    redis_away: RedisAway = RedisAway.FAIL_OPEN


class UnknownProvider(StrEnum):
    """What becomes of a request to a provider that has no limits."""

    REFUSE = "refuse"
    ALLOW = "allow"


class LimitSettings(_Strict):
    """The form of `limits.yaml`."""

    providers: dict[Name, Provider] = {}
    calls: Calls | None = None
    unknown_providers: UnknownProvider = UnknownProvider.REFUSE

    @model_validator(mode="after")
    def _no_calls(self) -> Self:
        if CALLS in self.providers:
            raise ValueError(f"no provider can be called {CALLS!r}")
        return self


class Part(_Strict):
    """A tenant's part of one limit: a rate over the limit's period and a burst of its own; for streams, a number."""

    limit: Amount
    burst: Amount | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.burst is not None and self.burst > self.limit:
            raise ValueError(f"burst {self.burst} is more than the limit {self.limit}")
        return self

    @property
    def burst_size(self) -> int:
        return self.burst or max(self.limit // 10, 1)


Parts = dict[Name, dict[Name, Part]]
"""Provider, limit, part."""


class Plan(_Strict):
    """What a tenant gets: a template for many, and, in `tenants`, what one has different."""

    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """The share of what there is while all ask for more."""
    calls: Amount | None = None
    """Calls at once; none: as many as there may be."""
    guaranteed_calls: Amount | None = None
    """Calls that are kept free for the tenant."""
    guarantees: Parts = {}
    """What is admitted at once, whatever others do."""
    ceilings: Parts = {}
    """What is never exceeded, even if nobody else asks."""


class Tenant(Plan):
    """One tenant: a plan's name, and what is different."""

    plan: Name | None = None
    blocked: bool = False


class TenantSettings(_Strict):
    """The form of `tenants.yaml`."""

    plans: dict[Name, Plan] = {}
    tenants: dict[Name, Tenant] = {}
    unknown: Name | None = None
    """The plan of tenants that are not listed, or `refuse`; without it they have weight 1 and nothing else."""


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Limits and tenants, checked against each other. Raises `InvalidSettings` with all faults."""

    limits: LimitSettings = field(default_factory=LimitSettings)
    tenants: TenantSettings = field(default_factory=TenantSettings)
    agreed: bool = True
    """Whether limits and tenants have to agree; what an operator sets in need is not held to it."""

    def __post_init__(self) -> None:
        if not self.agreed:
            return
        from coordination.limits.agreement import disagreements

        if faults := list(disagreements(self)):
            raise faulty(faults)

    @classmethod
    def parse(cls, limits: Mapping[str, Any] | None = None, tenants: Mapping[str, Any] | None = None) -> Self:
        """From plain mappings, as a YAML file holds them. Raises `InvalidSettings`, which lists all faults."""
        faults: list[str] = []
        parsed_limits, lost_limits = checked(LimitSettings, limits or {}, "limits", faults)
        parsed_tenants, lost_tenants = checked(TenantSettings, tenants or {}, "tenants", faults)
        if not faults:
            return cls(limits=parsed_limits, tenants=parsed_tenants)
        from coordination.limits.agreement import disagreements

        sound = cls(limits=parsed_limits, tenants=parsed_tenants, agreed=False)
        raise faulty([*faults, *disagreements(sound, lost_limits | lost_tenants)])

    def with_limits(self, overrides: Mapping[str, Mapping[str, Any]], *, strict: bool = False) -> LimitsConfig:
        """The same with what operators set: `provider/limit` -> what is different.

        What fits no limit is left out; with `strict` it raises `InvalidSettings`.
        """
        providers = dict(self.limits.providers)
        for name, values in overrides.items():
            provider, _, limit = name.partition("/")
            known = providers.get(provider)
            if known is None or limit not in known.limits:
                continue
            try:
                changed = known.limits[limit].with_values(values)
            except ValidationError as error:
                if strict:
                    raise faulty([fault_text(name, dict(f)) for f in error.errors()]) from None
                logger.error("what is set for %s is no limit and does not hold: %s", name, error)
                continue
            providers[provider] = known.model_copy(update={"limits": {**known.limits, limit: changed}})
        return replace(self, limits=self.limits.model_copy(update={"providers": providers}), agreed=False)

    def plan(self, tenant: str) -> Tenant | None:
        """What the tenant gets, its plan and its own entry merged; None if unknown tenants are refused."""
        if tenant in self.plans_of_tenants:
            return self.plans_of_tenants[tenant]
        return self._unknown

    @cached_property
    def plans_of_tenants(self) -> dict[str, Tenant]:
        """Every tenant that is listed, with its plan filled in."""
        return {name: self._merged(own) for name, own in self.tenants.tenants.items()}

    @cached_property
    def _unknown(self) -> Tenant | None:
        name = self.tenants.unknown
        return None if name == REFUSE else self._merged(Tenant(plan=name))

    def _merged(self, own: Tenant) -> Tenant:
        template = self.tenants.plans.get(own.plan) if own.plan else None
        if template is None:
            return own
        different = {name: getattr(own, name) for name in own.model_fields_set}
        return own.model_copy(update={**{name: getattr(template, name) for name in Plan.model_fields}, **different})
