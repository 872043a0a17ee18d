"""Faults of processes: killed, or stopped for a time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from coordination.testing.faults.fault import Fault, FaultImpossible, FaultKind

_PROC: Final = Path("/proc")
_WITHIN: Final = 5.0
"""Seconds in which a signal must have had its effect: the kernel needs microseconds, a busy machine more."""
_DEAD: Final = ("Z", "X")


@dataclass(frozen=True, slots=True)
class _Look:
    state: str
    parent: int
    born: str
    """When it was started, in ticks since boot: two processes of one pid differ in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """One running process that may be hurt. It is never mistaken for another one that got its pid later."""

    pid: int
    name: str
    """What to call it in front of people."""
    born: str

    @classmethod
    def of(cls, pid: int, name: str) -> Victim:
        """Raises `FaultImpossible` if there is no such process, or no /proc to know it by (Linux only)."""
        seen = _look(pid)
        if seen is None or seen.state in _DEAD:
            why = (
                f"there is no process {pid}" if _PROC.exists() else "processes are known by /proc, which only Linux has"
            )
            raise FaultImpossible(f"{name} cannot be hurt: {why}.")
        return cls(pid=pid, name=name, born=seen.born)

    @property
    def alive(self) -> bool:
        return self.state is not None

    @property
    def state(self) -> str | None:
        """The kernel's letter for it (T: stopped), None once it is dead, reaped or not."""
        seen = _look(self.pid)
        return seen.state if seen is not None and seen.born == self.born and seen.state not in _DEAD else None

    def signal(self, number: signal.Signals) -> None:
        """Raises `FaultImpossible` if it is dead already."""
        if not self.alive:
            raise FaultImpossible(f"{self.name} (pid {self.pid}) is dead already.")
        os.kill(self.pid, number)


def kill(victim: Victim) -> Fault:
    """SIGKILL; it has happened when the process is dead."""

    async def begin() -> None:
        victim.signal(signal.SIGKILL)
        await _until(victim, None)

    return Fault(kind=FaultKind.KILL, target=victim.name, begin=begin)


def pause(victim: Victim, *, lasting: timedelta) -> Fault:
    """SIGSTOP, and SIGCONT at the end. One that was killed meanwhile stays dead."""

    async def begin() -> None:
        victim.signal(signal.SIGSTOP)
        await _until(victim, "T")

    async def end() -> None:
        if victim.alive:
            victim.signal(signal.SIGCONT)

    return Fault(kind=FaultKind.PAUSE, target=victim.name, begin=begin, end=end, lasting=lasting)


def offspring(victim: Victim) -> tuple[Victim, ...]:
    """Every process that descends from it: of a worker's main process, its job processes and their fork server."""
    parents = {pid: seen for pid, seen in _everybody().items() if seen.state not in _DEAD}
    found: list[Victim] = []
    for pid, seen in parents.items():
        ancestor = seen.parent
        while ancestor in parents and ancestor != victim.pid:
            ancestor = parents[ancestor].parent
        if ancestor == victim.pid:
            found.append(Victim(pid=pid, name=f"a child of {victim.name}", born=seen.born))
    return tuple(found)


def _everybody() -> dict[int, _Look]:
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return {pid: seen for pid in pids if (seen := _look(pid)) is not None}


def _look(pid: int) -> _Look | None:
    try:
        # The name in parentheses may hold anything, parentheses included.
        fields = (_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return _Look(fields[0], int(fields[1]), fields[19])


async def _until(victim: Victim, state: str | None) -> None:
    deadline = time.monotonic() + _WITHIN
    while victim.state not in (state, None):
        if time.monotonic() > deadline:
            raise FaultImpossible(f"{victim.name} (pid {victim.pid}) did not react to the signal within {_WITHIN:g} s.")
        await asyncio.sleep(0.001)
