"""`baton doctor`: what would keep calls from working here, and what to do about it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import typer
from rich.text import Text

from coordination.cli.options import Json, RedisUrl
from coordination.cli.output import Exit, print_json, print_table
from coordination.dev.checks import Finding, Verdict, check_livekit, check_machine, check_redis

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAULT: "bold red"}


def doctor(redis_url: RedisUrl = None, json: Json = False) -> None:
    """Check Python, packages, Redis and LiveKit. Changes nothing. Exit status 1 if there is a fault."""
    findings = asyncio.run(_examine(redis_url))
    if json:
        print_json({"ok": not _faults(findings), "findings": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    raise typer.Exit(Exit.BAD_ANSWER if _faults(findings) else Exit.OK)


async def _examine(redis_url: str | None) -> list[Finding]:
    return [*check_machine(), *await check_redis(redis_url), *await check_livekit()]


def _faults(findings: list[Finding]) -> int:
    return sum(finding.verdict is Verdict.FAULT for finding in findings)


def _show(findings: list[Finding]) -> None:
    rows = [
        (
            Text(finding.verdict.value, style=_STYLES[finding.verdict]),
            finding.subject,
            Text(finding.text + (f"\n→ {finding.remedy}" if finding.remedy else "")),
        )
        for finding in findings
    ]
    print_table("", ("", "", ""), rows, empty="")
    faults = _faults(findings)
    warnings = sum(finding.verdict is Verdict.WARNING for finding in findings)
    print(f"\n{faults} faults, {warnings} warnings." if faults or warnings else "\nAll is well.")
