"""Schedules reach every cell, can be repeated, and admit what they missed; phases are what was observed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from coordination.testing.history import FloorEvent
from coordination.testing.schedule import Cell, Coverage, EmptyCells, Phase, PhaseObserver, Schedule

FAULTS = ("kill", "wipe", "cut")


def test_every_cell_is_drawn_before_any_is_drawn_again() -> None:
    schedule = Schedule(Coverage(FAULTS), seed=1)

    drawn: list[Cell] = []
    for _ in range(18):
        cell = schedule.next()
        assert cell is not None
        schedule.coverage.hit(cell.fault, cell.phase)
        drawn.append(cell)

    assert len(set(drawn)) == 18
    schedule.require_all()


def test_a_seed_repeats_a_schedule_and_another_one_does_not() -> None:
    def drawn(seed: int) -> list[Cell | None]:
        schedule = Schedule(Coverage(FAULTS), seed=seed)
        return [schedule.next() for _ in range(12)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert Schedule(Coverage(FAULTS)).seed != Schedule(Coverage(FAULTS)).seed


def test_a_cell_that_is_missed_again_and_again_does_not_keep_others_waiting() -> None:
    schedule = Schedule(Coverage(("kill",)), seed=3)

    aimed = [schedule.next() for _ in range(12)]

    assert {cell.phase for cell in aimed[:6] if cell} == set(Phase)
    assert {cell.phase for cell in aimed[6:] if cell} == set(Phase)


def test_only_what_is_possible_is_drawn() -> None:
    schedule = Schedule(Coverage(FAULTS), seed=5)

    def possible(cell: Cell) -> bool:
        return cell.fault == "wipe" and cell.phase is Phase.IDLE

    assert schedule.next(possible=possible) == Cell(fault="wipe", phase=Phase.IDLE)
    assert schedule.next(possible=lambda _: False) is None


def test_an_empty_cell_fails_the_run_and_is_named_with_the_seed() -> None:
    schedule = Schedule(Coverage(("kill",)), seed=42)
    for phase in list(Phase)[1:]:
        schedule.coverage.hit("kill", phase)

    with pytest.raises(EmptyCells, match="seed 42 left 1 cells empty: kill while idle"):
        schedule.require_all()


def test_the_table_shows_counts_and_gaps() -> None:
    coverage = Coverage(("kill", "wipe"), phases=(Phase.IDLE, Phase.READY))
    for _ in range(3):
        coverage.hit("wipe", Phase.READY)

    head, *rows = str(coverage).splitlines()

    assert head.split() == ["fault", "idle", "ready"]
    assert [row.split() for row in rows] == [["kill", "-", "-"], ["wipe", "-", "3"]]


@dataclass
class World:
    now: float = 100.0
    caller: bool = False
    agent: bool = False

    def observer(self) -> PhaseObserver:
        return PhaseObserver(caller_speaks=lambda: self.caller, agent_speaks=lambda: self.agent, now=lambda: self.now)


def event(kind: str, at: float = 100.0) -> FloorEvent:
    return FloorEvent(at=at, call="c", kind=kind)


def test_the_phase_follows_what_is_heard() -> None:
    world = World()
    observer = world.observer()

    seen = [observer.phase]
    world.agent = True
    seen.append(observer.phase)
    world.caller = True
    seen.append(observer.phase)

    assert seen == [Phase.IDLE, Phase.AGENT, Phase.CALLER]


def test_the_phase_follows_a_handoff_whoever_speaks() -> None:
    world = World(caller=True)
    observer = world.observer()

    seen: list[Phase] = []
    for kind in ("offer", "claimed", "ready", "commit"):
        observer.on_event(event(kind))
        seen.append(observer.phase)
    world.now += PhaseObserver.COMMIT_LASTS + 0.01
    seen.append(observer.phase)

    assert seen == [Phase.PREPARE, Phase.PREPARE, Phase.READY, Phase.COMMIT, Phase.CALLER]


def test_a_handoff_that_is_given_up_is_no_phase_any_more() -> None:
    observer = World().observer()

    observer.on_event(event("offer"))
    observer.on_event(event("abort"))

    assert observer.phase is Phase.IDLE


def test_a_handoff_that_the_store_forgot_is_over_when_the_floor_is_granted_again() -> None:
    observer = World().observer()

    observer.on_event(event("offer"))
    observer.on_event(event("ready"))
    observer.on_event(event("grant"))

    assert observer.phase is Phase.IDLE
