"""The demo as a person runs it: the whole call, in separate processes, on a real livekit-server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agents.demo import find_scenario, workers
from agents.saved import alike
from agents.watch import StoreWatch
from coordination.dev import DevStack
from coordination.testing.report import Report, Saved, Survival
from coordination.testing.runner import run_scenario

CHECKOUT = Path(__file__).parents[2]


def _is_in_the_database(saved: Saved | None) -> None:
    """Compared with script and recording; by the caller's name, the invoice and the ticket one hears what was read."""
    assert saved is not None
    assert (saved.missing, saved.doubled, saved.in_order) == ((), (), True)
    caller = [(row.matches or "", row.text) for row in saved.rows if row.speaker == "caller"]
    assert len(caller) == 7
    # A busy machine loses some of what the caller says: two words of it may be too few to be understood.
    assert {script for script, heard in caller if not alike(script, heard)} <= {"Yes please."}, caller
    agents = [(row.role, row.text) for row in saved.rows if row.speaker == "agent"]
    assert agents[0] == ("receptionist", "Hello Ann. Welcome to Bluebird Internet. How can I help you?")
    assert any(role == "billing" and "74 euros and 90 cents" in text for role, text in agents), agents
    assert saved.tickets == ("technician 4711",)
    assert any(role == "technical" and "4 7 1 1" in text for role, text in agents), agents
    assert (saved.handoffs, saved.roles) == (3, ("receptionist", "billing", "technical"))
    assert (saved.messages, saved.participants) == (len(saved.rows), 1)


def demo(*arguments: str, report: Path) -> tuple[int, Report, str]:
    done = subprocess.run(
        [sys.executable, "-m", "agents", "demo", "--report", str(report), *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    told = f"{done.stdout}\n{done.stderr}"
    assert report.exists(), told
    return done.returncode, Report.read(report), told


def test_the_demo_hands_the_caller_around_the_team_without_a_gap_or_a_second_voice(tmp_path: Path) -> None:
    status, report, told = demo("--record", str(tmp_path), report=tmp_path / "report.json")

    assert report.ok, told
    assert status == 0, told
    assert (report.answered_turns, report.double_answers, report.overlap_ms) == (report.turns, 0, 0)
    assert [(each.from_role, each.to_role) for each in report.handoffs] == [
        ("receptionist", "billing"),
        ("billing", "technical"),
        ("technical", "receptionist"),
    ]
    assert sum(turn.barge_in for turn in report.details) == 1
    _is_in_the_database(report.saved)
    assert (tmp_path / "call.wav").stat().st_size > 1_000_000


async def test_other_scenarios_than_that_of_the_demo_end_well_too(tmp_path: Path) -> None:
    """Other order, other words, sentences about something else, silence, a caller who hangs up in mid-handoff."""
    handoffs = {"other-order": 4, "paraphrases": 3, "out-of-domain": 1, "silent-caller": 1, "hang-up": 2}

    async def call(name: str, stack: DevStack) -> Report:
        livekit = stack.livekit
        async with StoreWatch(stack.redis_url) as watch:
            outcome = await run_scenario(
                find_scenario(name),
                url=livekit.url,
                api_key=livekit.api_key,
                api_secret=livekit.api_secret,
                watch=watch,
                record=tmp_path / name,
            )
        return outcome.report

    async with DevStack(workers({"BATON_PROVIDERS": "offline"}), directory=tmp_path) as stack:
        reports = [await call(name, stack) for name in handoffs]

    assert {report.scenario: report.reasons for report in reports if not report.ok} == {}
    assert {report.scenario: len(report.handoffs) for report in reports} == handoffs
    for report in reports:
        assert (report.answered_turns, report.double_answers, report.overlap_ms) == (report.turns, 0, 0)
        assert report.second_greetings == 0


def survived(*arguments: str, calls: int, folder: Path) -> tuple[Report, Survival]:
    """A scenario with a fault in it that ended well: no call and no turn was lost, and no two voices were heard."""
    status, report, told = demo(*arguments, report=folder / "report.json")
    assert report.ok, told
    assert status == 0, told
    survival = report.survival
    assert survival is not None
    assert (survival.calls, survival.lost_calls, survival.lost_turns, survival.overlap_ms) == (calls, 0, 0, 0)
    return report, survival


def test_a_call_whose_worker_is_killed_in_mid_sentence_goes_on_with_another_one(tmp_path: Path) -> None:
    _, survival = survived("--scenario", "takeover", calls=1, folder=tmp_path)

    assert survival.detected_ms is not None
    assert survival.ready_ms is not None
    assert survival.heard_ms is not None
    assert 0 < survival.detected_ms <= survival.ready_ms <= survival.heard_ms


def test_calls_outlive_a_rolling_restart_of_all_workers(tmp_path: Path) -> None:
    """Two calls: the five of the scenario, with their speech, want more than two cores."""
    _, survival = survived("--scenario", "drain", "--calls", "2", calls=2, folder=tmp_path)

    assert survival.ready_ms is not None, "no call was moved"
    assert survival.detected_ms is None, "an agent that was only asked to go was taken for lost"


def test_half_a_minute_without_redis_is_not_noticed_by_the_caller(tmp_path: Path) -> None:
    report, survival = survived("--scenario", "redis-loss", calls=1, folder=tmp_path)

    assert survival.ready_ms is None, "somebody was replaced"
    assert [(each.from_role, each.to_role) for each in report.handoffs] == [("receptionist", "billing")]
