"""Ways to break Baton, one function each: applied in the process of one job, never in the library.

A job whose dispatch metadata say `"mutant": name` applies it before its session exists; a worker that was started with
`TEST_MUTANT` applies it in its main process and in all its jobs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from livekit.agents import JobContext

from coordination.livekit.session import CoordinatedSession
from coordination.livekit.silence import RoomSilencer
from tests.chaos import fleet_mutants
from tests.chaos.fleet_mutants import replace


def gate_always_open() -> None:
    """Once it had the floor, an agent speaks for ever: its gate stays open, and nobody interrupts it."""

    def nothing(*_: object) -> None:
        pass

    fleet_mutants.gate_always_open()
    replace(CoordinatedSession, "fall_silent", nothing)
    replace(CoordinatedSession, "go_silent", nothing)


def no_silencing() -> None:
    """Whoever is to be silenced is said to be, and is not."""

    async def removed(_silencer: RoomSilencer, _identity: str) -> bool:
        return True

    def unseen(_silencer: RoomSilencer, _participant: object) -> None:
        pass

    replace(RoomSilencer, "_remove_identity", removed)
    replace(RoomSilencer, "_on_joined", unseen)


MUTANTS: dict[str, Callable[[], None]] = {
    "gate always open": gate_always_open,
    "fence ignored": fleet_mutants.fence_ignored,
    "no silencing": no_silencing,
}


def mutate(ctx: JobContext) -> None:
    """Applies what the job's dispatch asks for; nothing for a job that asks for none."""
    metadata: Any = json.loads(ctx.job.metadata or "{}")
    name = metadata.get("mutant") if isinstance(metadata, dict) else None
    if name:
        MUTANTS[name]()
