"""The comparison of database and call, on calls made by hand: it finds what is missing, doubled and out of order."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from agents.saved import alike, compare, judged
from coordination.testing.analysis import analyse
from coordination.testing.calls import Call, ExpectedAnswer, Turn, TurnKind
from coordination.testing.recording import SAMPLE_RATE, Channel, Recording
from coordination.testing.report import Report

BILL, THANKS = "I have a question about my bill.", "Thank you, that is all."


@pytest.fixture
def began() -> float:
    return time.monotonic() - 120


@pytest.fixture
def call(began: float) -> Call:
    """The caller at 2 and at 30 s, the reception at 5 s, billing at 33 s, each for two seconds."""
    channels = [_channel("caller", 2, 30), _channel("agent-reception", 5), _channel("agent-billing", 33)]
    opening = Turn(kind=TurnKind.OPENING, started=began, ended=began)
    turns = [
        Turn(kind=TurnKind.SPOKEN, started=began + at, ended=began + at + 2, text=text, expected=ExpectedAnswer())
        for at, text in ((2, BILL), (30, THANKS))
    ]
    recording = Recording(caller="caller", started=began, channels=tuple(channels))
    return Call(recording=recording, turns=(opening, *turns))


def _channel(speaker: str, *begins: float) -> Channel:
    samples = np.zeros(40 * SAMPLE_RATE, dtype=np.int16)
    for begin in begins:
        tone = 8000 * np.sin(np.arange(2 * SAMPLE_RATE) / 10)
        samples[int(begin * SAMPLE_RATE) :][: len(tone)] = tone.astype(np.int16)
    return Channel(speaker=speaker, role=speaker.partition("-")[2] or None, samples=samples)


def row(began: float, at: float, text: str, *, agent: str, fence: int, speaker: str = "agent") -> dict[str, Any]:
    moment = datetime.fromtimestamp(time.time() - time.monotonic() + began + at, UTC)
    played = 2.0 if speaker == "agent" else None
    whose = {"agent": agent, "role": agent, "fence": fence, "speaker": speaker}
    return {**whose, "text": text, "at": moment.isoformat(), "played_seconds": played}


@pytest.fixture
def rows(began: float) -> list[dict[str, Any]]:
    return [
        row(began, 4.6, "i have a question about my bill", agent="reception", fence=1, speaker="caller"),
        row(began, 4.9, "One moment.", agent="reception", fence=1),
        row(began, 32.4, "thank you that is all", agent="billing", fence=2, speaker="caller"),
        row(began, 32.9, "Goodbye.", agent="billing", fence=2),
    ]


def reasons(call: Call, rows: list[dict[str, Any]]) -> str:
    report = Report.of(analyse(call), scenario="by hand").model_copy(update={"reasons": ()})
    record = {"messages": len(rows), "participants": 1}
    return " / ".join(judged(report, compare("c", rows, call, record)).reasons)


def test_a_call_that_is_in_the_database_as_it_was_is_ok(call: Call, rows: list[dict[str, Any]]) -> None:
    saved = compare("c", rows, call, {"messages": 4, "participants": 1})

    assert reasons(call, rows) == ""
    assert (saved.said, saved.missing, saved.doubled, saved.in_order) == (4, (), (), True)
    assert [each.matches for each in saved.rows] == [BILL, "heard at 0:05.0", THANKS, "heard at 0:33.0"]


def test_what_is_missing_is_named(call: Call, rows: list[dict[str, Any]]) -> None:
    assert repr(BILL) in reasons(call, rows[1:])
    assert "what billing says at 0:33.0" in reasons(call, rows[:3])


def test_what_is_there_twice_or_under_another_agent_is_named(call: Call, rows: list[dict[str, Any]]) -> None:
    assert "has twice what was said once: 'One moment.'" in reasons(call, [rows[0], rows[1], rows[1], *rows[2:]])
    wrong = [*rows[:3], {**rows[3], "agent": "reception", "fence": 1}]
    assert "nobody said: 'Goodbye.'" in reasons(call, wrong)
    assert "what billing says" in reasons(call, wrong)


def test_a_wrong_order_is_named(call: Call, rows: list[dict[str, Any]]) -> None:
    assert "not in the order" in reasons(call, [rows[2], rows[3], rows[0], rows[1]])


def test_what_was_logged_and_not_heard_is_no_fault(call: Call, rows: list[dict[str, Any]], began: float) -> None:
    silent = row(began, 34.9, "And one thing more.", agent="billing", fence=2) | {"played_seconds": 0.0}

    saved = compare("c", [*rows, silent], call, {"messages": 5, "participants": 1})

    assert saved.rows[-1].matches is not None
    assert reasons(call, [*rows, silent]) == ""


def test_a_recogniser_may_be_a_little_wrong() -> None:
    assert alike("My internet is not working.", "my internet is not working well")
    assert not alike("My internet is not working.", "what is my account balance")
