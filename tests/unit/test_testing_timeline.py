"""The picture of a call shows what it must, in the place where it happened."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from coordination.testing.analysis import analyse
from coordination.testing.calls import Call, ExpectedAnswer, FloorChange, Turn, TurnKind
from coordination.testing.recording import FRAME_SAMPLES, Channel, Recording, Samples
from coordination.testing.timeline import draw_timeline

RED, BLUE = (200, 50, 43), (43, 108, 176)


def sound(begin: float, end: float, length: float) -> Samples:
    line = np.zeros(round(length * 100) * FRAME_SAMPLES, dtype=np.int16)
    line[round(begin * 100) * FRAME_SAMPLES : round(end * 100) * FRAME_SAMPLES] = 8000
    return line


def call(*agents: tuple[str, float, float], length: float = 20.0) -> Call:
    channels = [Channel(speaker="caller", samples=sound(1, 2, length))]
    channels += [Channel(speaker=who, role=who, samples=sound(begin, end, length)) for who, begin, end in agents]
    turn = Turn(kind=TurnKind.SPOKEN, started=1.0, ended=2.0, text="hello", expected=ExpectedAnswer(role=agents[0][0]))
    floor = (FloorChange(at=2.0, agent="a", role=agents[0][0], fence=1),)
    recording = Recording(caller="caller", started=0.0, channels=tuple(channels))
    return Call(recording=recording, turns=(turn,), floor=floor)


def columns(image: Image.Image, colour: tuple[int, int, int]) -> list[float]:
    """Where the colour is found, as shares of the time line's width."""
    found = (np.asarray(image) == np.array(colour)).all(axis=2).any(axis=0)
    return [(column - 210) / (2400 - 210 - 60) for column in np.flatnonzero(found).tolist()]


def test_an_agent_is_drawn_where_it_speaks() -> None:
    findings = analyse(call(("billing", 5, 10)))

    lane = np.asarray(draw_timeline(findings, title="x"))[158 + 84 : 158 + 158, 210:]
    inked = np.flatnonzero((lane == np.array(BLUE)).all(axis=2).sum(axis=0) > 10) / (2400 - 210 - 60)

    assert findings.ok
    assert inked[0] <= 0.26
    assert inked[-1] == pytest.approx(0.5, abs=0.01)


def test_an_overlap_is_marked_in_red_where_it_is() -> None:
    clean = draw_timeline(analyse(call(("billing", 5, 10))), title="x")
    bad = draw_timeline(analyse(call(("billing", 5, 10), ("technical", 9, 12))), title="x")

    assert columns(clean, RED) == []
    assert any(0.44 < column < 0.46 for column in columns(bad, RED))
    assert any(0.49 < column < 0.51 for column in columns(bad, RED))


def test_a_call_of_more_than_a_minute_takes_another_row() -> None:
    short = draw_timeline(analyse(call(("billing", 5, 10), length=59)), title="x")
    long = draw_timeline(analyse(call(("billing", 5, 10), length=61)), title="x")

    assert long.size[0] == short.size[0]
    assert long.size[1] > short.size[1] + 100
