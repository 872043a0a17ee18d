"""What a provider counts and when it refuses: an exact log of a sliding window.

On purpose nothing like the limiter's own algorithm: every charge is written down with its time, and a window is added
up entry by entry. So a fault of the limiter cannot hide behind the same fault here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, get_args

Unit = Literal["requests", "tokens", "characters", "audio_seconds"]
UNITS: tuple[Unit, ...] = get_args(Unit)

_ROUNDING = 1e-9
"""Sums of many floats miss a round number by less than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What an account may use in any `period`; `None` is unlimited. It holds for all API keys together."""

    requests: float | None = None
    tokens: float | None = None
    characters: float | None = None
    audio_seconds: float | None = None
    period: timedelta = timedelta(seconds=60)
    streams: int | None = None
    """How many streams may be open at once."""
    strictness: float = 1.0
    """The share of the quota at which the judge refuses already. Below 1 it stands for a provider that counts a little
    differently than it promises: a limiter that only just keeps its limit is found out."""

    def bound(self, unit: Unit) -> float | None:
        """What is enforced for the unit in each window."""
        promised: float | None = getattr(self, unit)
        return None if promised is None else promised * self.strictness


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was not served, and when it would be."""

    unit: Unit | Literal["streams"]
    retry_after: timedelta
    """Until the same request would fit, if nobody else came."""


@dataclass(slots=True)
class Charge:
    """One entry of the log. `amend` corrects it while the request runs."""

    at: float
    key: str
    amounts: dict[Unit, float]

    def amend(self, unit: Unit, amount: float) -> None:
        """What was used in truth, for instance when the client hung up before the end."""
        self.amounts[unit] = amount


@dataclass(slots=True)
class Judge:
    """Counts for one account. The log is kept whole: emulators live for a test or a demo."""

    quota: Quota
    clock: Callable[[], float] = time.monotonic
    log: list[Charge] = field(default_factory=list[Charge])
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    open_streams: int = 0
    peak_streams: int = 0

    def admit(self, key: str, amounts: Mapping[Unit, float], *, stream: bool = False) -> Charge | Refusal:
        """All of it or nothing. With `stream`, `close_stream` must follow an admission."""
        refusal = self._refusal(amounts, stream=stream)
        if refusal is not None:
            self.refusals.append(refusal)
            return refusal
        if stream:
            self.open_streams += 1
            self.peak_streams = max(self.peak_streams, self.open_streams)
        return self.charge(key, amounts)

    def charge(self, key: str, amounts: Mapping[Unit, float]) -> Charge:
        """Writes down what has been used already, whatever the quota says."""
        entry = Charge(self.clock(), key, dict(amounts))
        self.log.append(entry)
        return entry

    def close_stream(self) -> None:
        self.open_streams -= 1

    @property
    def refused(self) -> int:
        """How many requests found the quota used up."""
        return len(self.refusals)

    def total(self, unit: Unit, *, key: str | None = None) -> float:
        """All that was ever used, by everybody or with one API key."""
        return sum(entry.amounts.get(unit, 0.0) for entry in self.log if key is None or entry.key == key)

    def window(self, unit: Unit) -> float:
        """What was used in the period that ends now."""
        return sum(amount for _, amount in self._in_window(unit))

    def remaining(self, unit: Unit) -> float | None:
        """What would still be served now; `None` if the unit is unlimited."""
        bound = self.quota.bound(unit)
        return None if bound is None else max(0.0, bound - self.window(unit))

    def peak(self, unit: Unit) -> float:
        """The most that was used in any period."""
        period = self.quota.period.total_seconds()
        peak, total, first = 0.0, 0.0, 0
        for entry in self.log:
            total += entry.amounts.get(unit, 0.0)
            while self.log[first].at <= entry.at - period:
                total -= self.log[first].amounts.get(unit, 0.0)
                first += 1
            peak = max(peak, total)
        return peak

    def resets_in(self, unit: Unit) -> timedelta:
        """Until nothing of what was used counts any more."""
        entries = self._in_window(unit)
        return self._until(entries[-1][0]) if entries else timedelta(0)

    def _refusal(self, amounts: Mapping[Unit, float], *, stream: bool) -> Refusal | None:
        if stream and self.quota.streams is not None and self.open_streams >= self.quota.streams:
            return Refusal(unit="streams", retry_after=timedelta(seconds=1))
        late: list[Refusal] = []
        for unit, amount in amounts.items():
            wait = self._wait(unit, amount)
            if wait is not None:
                late.append(Refusal(unit=unit, retry_after=wait))
        return max(late, key=lambda refusal: refusal.retry_after, default=None)

    def _wait(self, unit: Unit, amount: float) -> timedelta | None:
        """Until `amount` fits into the window; `None` if it does now."""
        bound = self.quota.bound(unit)
        if bound is None:
            return None
        entries = self._in_window(unit)
        excess = sum(used for _, used in entries) + amount - bound
        if excess <= _ROUNDING:
            return None
        for at, used in entries:
            excess -= used
            if excess <= _ROUNDING:
                return self._until(at)
        return self.quota.period

    def _in_window(self, unit: Unit) -> list[tuple[float, float]]:
        since = self.clock() - self.quota.period.total_seconds()
        found: list[tuple[float, float]] = []
        for entry in reversed(self.log):
            if entry.at <= since:
                break
            if unit in entry.amounts:
                found.append((entry.at, entry.amounts[unit]))
        return found[::-1]

    def _until(self, at: float) -> timedelta:
        """Until an entry of that time leaves the window."""
        return timedelta(seconds=max(0.0, at + self.quota.period.total_seconds() - self.clock()))
