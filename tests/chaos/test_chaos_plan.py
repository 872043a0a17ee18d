"""What a short chaos run sets out to do."""

from __future__ import annotations

import pytest

from coordination.testing.schedule import Coverage, Phase, Schedule
from tests.chaos.run import FAULTS, plan


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_has_every_fault_and_every_phase_and_is_its_seeds(seed: int) -> None:
    cells = plan(Schedule(Coverage(list(FAULTS)), seed=seed))

    assert [sum(cell.fault == fault for cell in cells) for fault in FAULTS] == [1] * len(FAULTS)
    assert {cell.phase for cell in cells} == set(Phase)
    assert cells == plan(Schedule(Coverage(list(FAULTS)), seed=seed))
