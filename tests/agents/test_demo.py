"""The demo as a person runs it: the whole call, in separate processes, on a real livekit-server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coordination.testing.report import Report

CHECKOUT = Path(__file__).parents[2]


def test_the_demo_hands_the_caller_around_the_team_without_a_gap_or_a_second_voice(tmp_path: Path) -> None:
    file = tmp_path / "report.json"

    done = subprocess.run(
        [sys.executable, "-m", "agents", "demo", "--report", str(file), "--record", str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    told = f"{done.stdout}\n{done.stderr}"
    report = Report.read(file)
    assert report.ok, told
    assert done.returncode == 0, told
    assert (report.answered_turns, report.double_answers, report.overlap_ms) == (report.turns, 0, 0)
    assert [(each.from_role, each.to_role) for each in report.handoffs] == [
        ("receptionist", "billing"),
        ("billing", "technical"),
        ("technical", "receptionist"),
    ]
    assert sum(turn.barge_in for turn in report.details) == 1
    assert (tmp_path / "call.wav").stat().st_size > 1_000_000
