"""The demo: a whole call with three agents in separate processes, on a real livekit-server, on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from agents.watch import StoreWatch
from config import ProviderChoice, Role
from coordination.dev import DevStack, WorkerSpec
from coordination.errors import CoordinationError
from coordination.testing.happenings import Tell, tell_nobody
from coordination.testing.report import Report
from coordination.testing.runner import run_scenario
from coordination.testing.scenario import Scenario

SCENARIOS = Path(__file__).with_name("scenarios")
DEFAULT_SCENARIO = "handoff"


class NoSuchScenario(CoordinationError, ValueError):
    """What was given is neither a shipped scenario nor a file."""

    def __init__(self, given: str) -> None:
        self.given = given
        names = ", ".join(sorted(path.stem for path in SCENARIOS.glob("*.yaml")))
        super().__init__(f"There is no scenario {given!r}. Give the path of a scenario file, or one of: {names}.")


def find_scenario(given: str) -> Scenario:
    """The shipped scenario of that name, or the one in that file.

    Raises `NoSuchScenario`, and `InvalidScenario` that lists all faults of a file.
    """
    shipped = SCENARIOS / f"{given}.yaml"
    if "/" not in given and shipped.is_file():
        return Scenario.read(shipped)
    if Path(given).is_file():
        return Scenario.read(Path(given))
    raise NoSuchScenario(given)


def workers(environment: Mapping[str, str] | None = None) -> list[WorkerSpec]:
    """One worker for each role."""
    return [
        WorkerSpec(
            target=f"agents.{role.value}.agent",
            name=role.value,
            environment=dict(environment or {}),
            drain_timeout=timedelta(seconds=1),
        )
        for role in Role
    ]


async def run_demo(
    scenario: Scenario,
    *,
    real_providers: bool = False,
    record: Path | None = None,
    logs: Path | None = None,
    tell: Tell = tell_nobody,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Starts everything, makes the call, stops everything.

    Offline providers are used whatever keys there are, unless `real_providers` says otherwise: then the call costs
    money. Raises a `DevError` that says what to install when a part of the stack cannot be had.
    """
    os.chdir(Path(__file__).parents[1])  # the workers import `agents` and `config` from here
    choice = ProviderChoice.AUTO if real_providers else ProviderChoice.OFFLINE
    async with DevStack(workers({"BATON_PROVIDERS": choice.value}), directory=logs, progress=progress) as stack:
        livekit = stack.livekit
        async with StoreWatch(stack.redis_url) as watch:
            outcome = await run_scenario(
                scenario,
                url=livekit.url,
                api_key=livekit.api_key,
                api_secret=livekit.api_secret,
                tell=tell,
                watch=watch,
                record=record,
            )
    return outcome.report
