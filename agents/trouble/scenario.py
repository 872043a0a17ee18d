"""Runs a scenario with faults in it: a stack with two workers for each role, its callers, and one report on all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agents.trouble.faults import HURT_WORKERS, StackFaults
from agents.trouble.judging import TroubledCall, together
from agents.watch import StoreWatch
from coordination import Coordinator
from coordination.dev import DevStack, WorkerSpec
from coordination.dev.livekit_program import Progress
from coordination.testing.faults import FaultImpossible
from coordination.testing.happenings import Tell, tell_nobody
from coordination.testing.report import Report
from coordination.testing.runner import run_scenario
from coordination.testing.scenario import Scenario

DRAIN = timedelta(seconds=30)
"""How long a worker that is told to end may take to hand its calls over."""
APART = 2.0
"""Seconds between two callers' beginnings: they don't all say the same thing at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubleOptions:
    """How a scenario with faults is run."""

    environment: Mapping[str, str]
    record: Path | None
    logs: Path | None
    tell: Tell
    progress: Progress


def workers_for(scenario: Scenario, environment: Mapping[str, str]) -> list[WorkerSpec]:
    """Two for each role, for nobody can step in for the only one; one where no worker is hurt."""
    workers = (1, 2) if scenario.faults & HURT_WORKERS else (1,)
    return [
        WorkerSpec(
            target=f"agents.{role}.agent",
            name=f"{role}-{number}",
            environment=dict(environment),
            drain_timeout=DRAIN,
        )
        for role in scenario.roles
        for number in workers
    ]


async def run_trouble(scenario: Scenario, options: TroubleOptions) -> Report:
    """Starts everything, makes the calls and the trouble, stops everything; judges all calls together."""
    async with (
        DevStack(
            workers_for(scenario, options.environment), directory=options.logs, progress=options.progress
        ) as stack,
        Coordinator.open(stack.redis_url) as coordinator,
    ):
        faults = StackFaults(stack, coordinator, calls=scenario.calls)
        try:
            calls = await _calls(scenario, stack, faults, options)
        finally:
            await faults.close()
    if faults.struck is None:
        raise FaultImpossible(f"No fault of the scenario {scenario.name!r} was reached; its report would show nothing.")
    return together(calls, struck=faults.struck)


async def _calls(
    scenario: Scenario, stack: DevStack, faults: StackFaults, options: TroubleOptions
) -> Sequence[TroubledCall]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_call(scenario, stack, faults, options, number))
            for number in range(1, scenario.calls + 1)
        ]
    return [task.result() for task in tasks]


async def _call(
    scenario: Scenario,
    stack: DevStack,
    faults: StackFaults,
    options: TroubleOptions,
    number: int,
) -> TroubledCall:
    """One caller, in a room of its own. The first one's conversation is told."""
    await asyncio.sleep((number - 1) * APART)
    livekit = stack.livekit
    record = options.record if scenario.calls == 1 or options.record is None else options.record / f"call-{number}"
    async with StoreWatch(stack.redis_url) as watch:
        outcome = await run_scenario(
            scenario,
            url=livekit.url,
            api_key=livekit.api_key,
            api_secret=livekit.api_secret,
            tell=options.tell if number == 1 else tell_nobody,
            watch=watch,
            record=record,
            faults=faults.actions,
        )
    return TroubledCall(outcome=outcome, events=tuple(watch.events))
