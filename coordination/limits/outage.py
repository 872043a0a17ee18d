"""What holds while Redis is away: each limit's policy, kept by this process alone.

`fail_open` and `local_share` give up the bound, as the documentation says. What was admitted meanwhile is charged to
the shared buckets when Redis is back, so that the first moments after an outage do not come on top of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coordination.errors import LimitExceeded, LimitsUnavailable, LimitTimeout
from coordination.limits.buckets import Rate, Slots
from coordination.limits.config import RedisAway
from coordination.limits.request import MICROSECONDS, Admission, LimitRequest
from coordination.metrics import METRICS

if TYPE_CHECKING:
    from coordination.limits.admission import Admissions

LOOK_EVERY: Final = 0.1
"""Seconds between looks, in this process alone, whether one of its slots is free, or Redis is back."""
REMEMBERED: Final = 10_000
"""Local admissions that are charged later; more than that only if a process admits hundreds a second alone."""
LOCAL: Final = Admission(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Charge:
    """What a local admission took of a shared bucket."""

    at: float
    rate: Rate
    interval: int


class Outage:
    """Admits without the store."""

    def __init__(self, engine: Admissions) -> None:
        self._engine = engine
        self._levels: dict[tuple[str, str], float] = {}
        self._charges: dict[tuple[str, ...], deque[_Charge]] = {}

    async def admit(self, request: LimitRequest) -> Admission | None:
        """Returns when the policies of its limits let the request go; None if Redis is back before that.

        Raises `LimitsUnavailable` (fail_closed), `LimitExceeded`, `LimitTimeout`.
        """
        loop = asyncio.get_running_loop()
        shape, now = request.shape, loop.time()
        for check in shape.ordinary:
            if check.away is RedisAway.FAIL_CLOSED:
                METRICS.limit_refused(shape.provider, check.limit)
                raise LimitsUnavailable(shape.provider, check.limit)
        at, limit = self._passes_at(request, now)
        self._give_up_before(at, limit, request)
        taken = self._take(request, at)
        try:
            while (left := at - loop.time()) > 0:
                request.waited = True
                await asyncio.sleep(min(left, LOOK_EVERY))
                if self._engine.store.connected:
                    self._put_back(taken)
                    return None
            # Last: whoever is told here that a slot is free holds it before anybody else looks.
            while limit := self._full(request):
                self._give_up_before(loop.time() + LOOK_EVERY, limit, request)
                if self._engine.store.connected:
                    self._put_back(taken)
                    return None
                request.waited = True
                await asyncio.sleep(LOOK_EVERY)
        except BaseException:
            self._put_back(taken)
            raise
        self._note(request)
        METRICS.limit_alone(shape.provider)
        return LOCAL

    def _give_up_before(self, at: float, limit: str, request: LimitRequest) -> None:
        """Raises for a request that cannot pass in its time: its caller learns that now, not at the end of it."""
        now, shape = asyncio.get_running_loop().time(), request.shape
        if at <= now or request.give_up is None or at <= request.give_up:
            return
        METRICS.limit_refused(shape.provider, limit)
        if request.give_up <= request.entered_at:
            raise LimitExceeded(shape.provider, limit, shape.tenant, at - now)
        raise LimitTimeout(shape.provider, limit, shape.tenant, now - request.entered_at)

    def _passes_at(self, request: LimitRequest, now: float) -> tuple[float, str]:
        """When this process's shares of all rates pass, and the limit that is last to."""
        latest, limit = now, ""
        for check in request.shape.ordinary:
            if isinstance(check, Rate) and check.away is RedisAway.LOCAL_SHARE:
                slack = max(check.slack / MICROSECONDS - self._interval(request, check), 0.0)
                at = self._levels.get(_key(request, check), 0.0) - slack
                if at > latest:
                    latest, limit = at, check.limit
        return latest, limit

    def _full(self, request: LimitRequest) -> str:
        """The limit of which this process holds all slots that are its share; empty if there is none."""
        heartbeat = self._engine.heartbeat(request.keys)
        for check in request.shape.ordinary:
            if not isinstance(check, Slots) or check.away is not RedisAway.LOCAL_SHARE:
                continue
            if heartbeat.holds(check.set) >= max(check.most // heartbeat.processes, 1):
                return check.limit
        return ""

    def _interval(self, request: LimitRequest, check: Rate) -> float:
        """Seconds that the request takes of this process's share: at most a period, for each may have one."""
        alone = check.interval(request.costs[check.unit]) * self._engine.heartbeat(request.keys).processes
        return min(alone, check.period) / MICROSECONDS

    def _take(self, request: LimitRequest, at: float) -> list[tuple[tuple[str, str], float]]:
        taken: list[tuple[tuple[str, str], float]] = []
        for check in request.shape.ordinary:
            if isinstance(check, Rate) and check.away is RedisAway.LOCAL_SHARE:
                key, interval = _key(request, check), self._interval(request, check)
                self._levels[key] = max(self._levels.get(key, 0.0), at) + interval
                taken.append((key, interval))
        return taken

    def _put_back(self, taken: list[tuple[tuple[str, str], float]]) -> None:
        for key, interval in taken:
            # All is forgotten when Redis is back.
            if key in self._levels:
                self._levels[key] -= interval

    def _note(self, request: LimitRequest) -> None:
        charges = self._charges.setdefault(request.keys.keys, deque(maxlen=REMEMBERED))
        now = asyncio.get_running_loop().time()
        for check in request.shape.ordinary:
            if isinstance(check, Rate):
                charges.append(_Charge(at=now, rate=check, interval=check.interval(request.costs[check.unit])))

    @property
    def owes(self) -> bool:
        """Whether something was taken alone that is not charged yet."""
        return bool(self._charges)

    def owed(self) -> list[tuple[tuple[str, ...], dict[str, int]]]:
        """What was taken alone and has not drained away yet, by provider and bucket; forgotten by this call."""
        now = asyncio.get_running_loop().time()
        owed: list[tuple[tuple[str, ...], dict[str, int]]] = []
        for keys, charges in self._charges.items():
            buckets: dict[str, int] = {}
            for charge in charges:
                if now - charge.at < charge.rate.period / MICROSECONDS:
                    bucket = charge.rate.field
                    buckets[bucket] = min(buckets.get(bucket, 0) + charge.interval, charge.rate.period)
            if buckets:
                owed.append((keys, buckets))
        self._charges.clear()
        self._levels.clear()
        return owed


def _key(request: LimitRequest, check: Rate) -> tuple[str, str]:
    return request.keys.base, check.field
