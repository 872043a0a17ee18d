"""Calls under random faults: real workers, a real livekit-server, callers that listen, and a checker that judges.

`make test` runs it for a short while, `make chaos` for half an hour. `CHAOS_MINUTES` says for how long (3),
`CHAOS_SEED` repeats a schedule, `CHAOS_CALLS` says how many calls there are at once (1), `CHAOS_HISTORY` keeps the
history in a folder.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from coordination.testing.checker import Bounds, check
from coordination.testing.history import History
from coordination.testing.schedule import EmptyCells
from tests.chaos.rig import rigged
from tests.chaos.run import ChaosRun
from tests.chaos.words import ROLES

MINUTES = float(os.environ.get("CHAOS_MINUTES") or "3")
SEED = int(os.environ["CHAOS_SEED"]) if os.environ.get("CHAOS_SEED") else None
CALLS = int(os.environ.get("CHAOS_CALLS") or "1")

LONG = 20.0
"""Minutes from which every fault must have struck in every phase; before that, what was planned."""
BOUNDS = Bounds(linger=timedelta(seconds=75), holderless=timedelta(seconds=8), together=timedelta(milliseconds=65))
"""A call ends with its caller's grace (1.5 s), and its agents with their jobs: keys live a minute beyond that.
Without recovery the floor of a lost agent expires, and the only standby may have been lost as well. Faults
make a busy machine busier: the caller's jitter buffers were seen to shift two voices against each other by 60 ms."""


async def test_no_promise_is_broken_under_random_faults(tmp_path: Path) -> None:
    folder = Path(os.environ.get("CHAOS_HISTORY") or tmp_path)
    with History(path=folder / "history.jsonl") as history:
        async with rigged(tmp_path, ROLES) as rig:
            run = ChaosRun.of(rig, history, seed=SEED, calls=CALLS)
            print(f"seed {run.schedule.seed}, {MINUTES:g} minutes, {CALLS} calls at once, history in {folder}")
            await run.run(MINUTES)
    judgement = check(history, bounds=BOUNDS)
    print(run.schedule.coverage)
    print(judgement)
    print(f"{run.stalls} stalls of the machine, {run.dispatches} agents sent for by the run, missed: {run.missed}")

    assert judgement.ok, f"seed {run.schedule.seed}: {judgement}"
    if run.unreached:
        raise EmptyCells(run.unreached, run.schedule.seed)
    if MINUTES >= LONG:
        run.schedule.require_all()
