"""The demo as a person runs it: the whole call, in separate processes, on a real livekit-server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agents.saved import alike
from coordination.testing.report import Report, Saved

CHECKOUT = Path(__file__).parents[2]


def _is_in_the_database(saved: Saved | None) -> None:
    """Compared with script and recording; by the caller's name, the invoice and the ticket one hears what was read."""
    assert saved is not None
    assert (saved.missing, saved.doubled, saved.in_order) == ((), (), True)
    caller = [(row.matches or "", row.text) for row in saved.rows if row.speaker == "caller"]
    assert len(caller) == 7
    assert all(alike(*pair) for pair in caller), caller
    agents = [(row.role, row.text) for row in saved.rows if row.speaker == "agent"]
    assert agents[0] == ("receptionist", "Hello Ann. Welcome to Bluebird Internet. How can I help you?")
    assert any(role == "billing" and "74 euros and 90 cents" in text for role, text in agents), agents
    assert saved.tickets == ("technician 4711",)
    assert any(role == "technical" and "4 7 1 1" in text for role, text in agents), agents
    assert (saved.handoffs, saved.roles) == (3, ("receptionist", "billing", "technical"))
    assert (saved.messages, saved.participants) == (len(saved.rows), 1)


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
    _is_in_the_database(report.saved)
    assert (tmp_path / "call.wav").stat().st_size > 1_000_000
