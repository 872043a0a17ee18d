"""The outcome of the scenario `limits`, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from agents.limits.scenario import LimitsReport


def show_limits(console: Console, report: LimitsReport) -> None:
    """What each tenant got, and what the providers had to refuse, side by side."""
    shares = Table("tenant", "weight", "calls", "admitted", "waited", "refused", "share of tokens")
    for name, tenant in report.tenants.items():
        values = (tenant.weight, tenant.calls, tenant.admitted, tenant.waited, tenant.refused)
        shares.add_row(name, *(f"{value:g}" for value in values), f"{tenant.share:.0%}")
    console.print(shares)
    runs = Table("", "provider 429s", "answered", "not answered")
    for name in ("with", "without"):
        values = (report.provider_429[name], report.turns[name], report.broken[name])
        runs.add_row(f"{name} the limiter", *map(str, values))
    console.print(runs)
