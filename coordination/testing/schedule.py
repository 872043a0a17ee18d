"""Which fault to inflict next, and in which phase of a call: random by a seed that is printed, towards what is missing.

The phase of a moment is observed, never assumed: what the schedule aimed at is a wish, what counts for the coverage is
the phase in which the fault did strike. A cell of the table fault × phase that stayed empty is a failure of the run: it
did not try what it claims.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from coordination.errors import CoordinationError
from coordination.testing.history import FloorEvent


class Phase(StrEnum):
    """What a call is doing."""

    IDLE = "idle"
    CALLER = "caller speaking"
    AGENT = "agent speaking"
    PREPARE = "prepare"
    """A handoff was offered, the target gets ready."""
    READY = "ready"
    """The target waits for the floor."""
    COMMIT = "commit"
    """The floor has just moved."""


class EmptyCells(CoordinationError):
    """A run did not inflict every fault in every phase."""

    def __init__(self, empty: Sequence[Cell], seed: int) -> None:
        self.empty, self.seed = tuple(empty), seed
        cells = ", ".join(f"{cell.fault} while {cell.phase}" for cell in empty)
        super().__init__(f"The run with seed {seed} left {len(empty)} cells empty: {cells}. Let it run longer.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fault in one phase."""

    fault: str
    phase: Phase


class Coverage:
    """How often each fault struck in each phase."""

    def __init__(self, faults: Sequence[str], *, phases: Sequence[Phase] = tuple(Phase)) -> None:
        self.faults, self.phases = tuple(faults), tuple(phases)
        self._hits: Counter[Cell] = Counter()

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(Cell(fault=fault, phase=phase) for fault in self.faults for phase in self.phases)

    @property
    def empty(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if not self._hits[cell])

    def hit(self, fault: str, phase: Phase) -> None:
        """Counts a strike. One of a fault or phase that is not in the table is not counted."""
        self._hits[Cell(fault=fault, phase=phase)] += 1

    def hits(self, fault: str, phase: Phase) -> int:
        return self._hits[Cell(fault=fault, phase=phase)]

    def __str__(self) -> str:
        """The table, for people; a cell that was not hit shows a dash."""
        width = max(len(fault) for fault in (*self.faults, "fault"))
        columns = [max(len(phase), 5) for phase in self.phases]
        head = "  ".join(phase.rjust(column) for phase, column in zip(self.phases, columns, strict=True))
        lines = [f"{'fault'.ljust(width)}  {head}"]
        for fault in self.faults:
            counts = (str(self.hits(fault, phase) or "-") for phase in self.phases)
            row = "  ".join(count.rjust(column) for count, column in zip(counts, columns, strict=True))
            lines.append(f"{fault.ljust(width)}  {row}")
        return "\n".join(lines)


class Schedule:
    """Draws cells: an empty one while there is any, else any. The same seed draws the same if the same is hit."""

    def __init__(self, coverage: Coverage, *, seed: int | None = None) -> None:
        self.coverage = coverage
        self.seed = random.randrange(10**9) if seed is None else seed
        self.chance = random.Random(self.seed)
        """For whatever else of the run is random."""
        self._aimed: Counter[Cell] = Counter()

    def next(self, *, possible: Callable[[Cell], bool] = lambda _: True) -> Cell | None:
        """The cell to aim at now, of those that are `possible`; None if none is."""
        empty = [cell for cell in self.coverage.empty if possible(cell)]
        cells = empty or [cell for cell in self.coverage.cells if possible(cell)]
        if not cells:
            return None
        # A cell that was missed before is not tried for ever while others wait.
        fewest = min(self._aimed[cell] for cell in cells)
        chosen = self.chance.choice([cell for cell in cells if self._aimed[cell] == fewest])
        self._aimed[chosen] += 1
        return chosen

    def require_all(self) -> None:
        """Raises `EmptyCells` if the table has any."""
        if self.coverage.empty:
            raise EmptyCells(self.coverage.empty, self.seed)


class PhaseObserver:
    """Tells the phase of one call from what is known of it from outside."""

    COMMIT_LASTS: Final = 0.4
    """Seconds after a commit that belong to it: first renewal, first sound, the old agent's stepping back."""

    def __init__(
        self, *, caller_speaks: Callable[[], bool], agent_speaks: Callable[[], bool], now: Callable[[], float]
    ) -> None:
        self._caller_speaks, self._agent_speaks, self._now = caller_speaks, agent_speaks, now
        self._handoff: Phase | None = None
        self._committed: float | None = None

    def on_event(self, event: FloorEvent) -> None:
        """Takes the events of the room as they become known."""
        if event.kind in ("offer", "claimed"):
            self._handoff = Phase.PREPARE
        elif event.kind == "ready":
            self._handoff = Phase.READY
        elif event.kind in ("commit", "abort"):
            self._handoff = None
            self._committed = event.at if event.kind == "commit" else self._committed
        elif event.kind == "grant":
            # Who offered is lost, or the store has forgotten the handoff and its holder claims the floor again.
            self._handoff = None

    @property
    def phase(self) -> Phase:
        """A handoff comes before what is heard during it."""
        if self._handoff is not None:
            return self._handoff
        if self._committed is not None and self._now() - self._committed < self.COMMIT_LASTS:
            return Phase.COMMIT
        if self._caller_speaks():
            return Phase.CALLER
        return Phase.AGENT if self._agent_speaks() else Phase.IDLE
