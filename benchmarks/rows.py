"""One row of the report, and how figures are summed up."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One target and what was measured. `ok` is None where a row only reports."""

    name: str
    target: str
    measured: str
    ok: bool | None
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Percentiles of one series."""

    p50: float
    p95: float
    p99: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered = sorted(values)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return cls(
            p50=statistics.median(ordered),
            p95=at(0.95),
            p99=at(0.99),
            least=ordered[0],
            most=ordered[-1],
            count=len(ordered),
        )

    def text(self, unit: str, *, digits: int = 2) -> str:
        return f"{self.p50:.{digits}f} {unit} (p99 {self.p99:.{digits}f}, most {self.most:.{digits}f}, n={self.count})"
