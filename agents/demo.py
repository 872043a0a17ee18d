"""The demo: a whole call with three agents in separate processes, on a real livekit-server, on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agents.saved import USER, Ledger, NoWatch, judged
from agents.trouble.scenario import TroubleOptions, run_trouble
from agents.watch import StoreWatch
from config import ProviderChoice, Role
from coordination.dev import DevStack, WorkerSpec
from coordination.dev.backend import BackendServer
from coordination.errors import CoordinationError
from coordination.livekit.record import SessionRecord
from coordination.testing.happenings import Tell, tell_nobody
from coordination.testing.report import Report
from coordination.testing.runner import HandoffWatch, Outcome, run_scenario
from coordination.testing.scenario import Scenario

SCENARIOS = Path(__file__).with_name("scenarios")
DEFAULT_SCENARIO = "handoff"
CHECKOUT = Path(__file__).parents[1]
SOLO = "solo"
"""The role of the assistant that works alone."""
LIMITS = "limits"
"""The scenario that is no call but many: `agents.limits`."""


class NoSuchScenario(CoordinationError, ValueError):
    """What was given is neither a shipped scenario nor a file."""

    def __init__(self, given: str) -> None:
        self.given = given
        names = ", ".join(sorted([LIMITS, *(path.stem for path in SCENARIOS.glob("*.yaml"))]))
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
    os.chdir(CHECKOUT)  # the workers import `agents` and `config` from here
    choice = ProviderChoice.AUTO if real_providers else ProviderChoice.OFFLINE
    environment = {"BATON_PROVIDERS": choice.value}
    options = _Options(record=record, logs=logs, tell=tell, progress=progress)
    if scenario.faults:
        trouble = TroubleOptions(environment=environment, record=record, logs=logs, tell=tell, progress=progress)
        return await run_trouble(scenario, trouble)
    if scenario.first == SOLO:
        return await _run_alone(scenario, environment, options)
    backend = BackendServer()
    async with (
        DevStack(workers(environment), backend=backend, directory=logs, progress=progress) as stack,
        StoreWatch(stack.redis_url) as watch,
    ):
        return await _compared(scenario, stack, options, backend, watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    record: Path | None
    logs: Path | None
    tell: Tell
    progress: Callable[[str], None]


async def _run_alone(scenario: Scenario, environment: dict[str, str], options: _Options) -> Report:
    """One agent, LiveKit, and a backend on SQLite."""
    with tempfile.TemporaryDirectory(prefix="baton-solo-") as folder:
        backend = BackendServer()
        environment = {**environment, "BATON_OUTBOX_FILE": str(Path(folder) / "outbox.sqlite3")}
        spec = WorkerSpec(
            target="agents.solo.agent", name=SOLO, environment=environment, drain_timeout=timedelta(seconds=10)
        )
        async with DevStack(
            [spec], redis=False, backend=backend, directory=options.logs, progress=options.progress
        ) as stack:
            return await _compared(scenario, stack, options, backend, NoWatch())


async def _compared(
    scenario: Scenario, stack: DevStack, options: _Options, backend: BackendServer, watch: StoreWatch | NoWatch
) -> Report:
    """The call of somebody whom the backend knows, and what the backend has of it afterwards."""
    ledger = Ledger(backend)
    try:
        await ledger.introduce()
        outcome = await _call(scenario, stack, options, watch=watch, session=SessionRecord(user=USER))
        return judged(outcome.report, await ledger.compare(watch.sid, outcome.findings.call))
    finally:
        await ledger.close()


async def _call(
    scenario: Scenario,
    stack: DevStack,
    options: _Options,
    *,
    watch: HandoffWatch,
    session: SessionRecord | None = None,
) -> Outcome:
    livekit = stack.livekit
    return await run_scenario(
        scenario,
        url=livekit.url,
        api_key=livekit.api_key,
        api_secret=livekit.api_secret,
        tell=options.tell,
        watch=watch,
        record=options.record,
        session=session,
    )
