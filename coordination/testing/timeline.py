"""A picture of a call: who spoke when, who held the floor, where the voice changed, and what was wrong.

Calls of more than a minute are broken into rows of a minute. Each speaker has a lane; what is drawn in it is the
loudness that the caller heard. Caller turns are numbered, and their words listed below. The strip under the lanes
shows who had the floor, as far as the room announced it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from coordination.testing.analysis import Findings
from coordination.testing.answers import PHRASE
from coordination.testing.hearing import Hearing, Span, audible_frames, spans
from coordination.testing.recording import FRAME, FRAME_SAMPLES, Channel

LONGEST_ROW, SHORTEST_ROW = timedelta(seconds=60), timedelta(seconds=20)
_TICK = timedelta(seconds=5)

_WIDTH = 2400
_LEFT, _RIGHT = 210, 60
_LANE, _LANE_GAP = 74, 10
_STRIP = 16
_TICKS = 34
_ROW_GAP = 46
_MARGIN = 44
_HEADER = 158
_LINE = 34

_PAPER = "#fbfaf7"
_INK = "#22262b"
_SOFT = "#7b828c"
_RULE = "#e4e1da"
_LANE_PAPER = "#f3f1ec"
_BAD = "#c8322b"
_GOOD = "#2f7d4f"
_CALLER = "#5b6470"
_AGENTS = ("#2b6cb0", "#b8641b", "#6b4ea0", "#0f8b8d", "#a63d6f", "#6f7d1c", "#8a5a44", "#3d5a80")

_Colour = tuple[int, int, int]


def draw_timeline(findings: Findings, *, title: str) -> Image.Image:
    """The picture of a call, with `title` above it. Save it as PNG: `.save(path)`."""
    sheet = _Sheet(findings)
    sheet.draw_header(title)
    for row in range(sheet.rows):
        sheet.draw_row(row)
    sheet.draw_words()
    return sheet.image


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    """A line below the lanes."""

    mark: str
    text: str
    colour: str


class _Sheet:
    """One picture in the making. Geometry: rows of lanes between a header and a list of words."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.recording = findings.call.recording
        self.hearing = Hearing(self.recording)
        self.lanes = _lanes(findings)
        self.colours = _colours(self.lanes, self.recording.caller)
        self.row = max(SHORTEST_ROW, min(LONGEST_ROW, -(-self.recording.duration // _TICK) * _TICK))
        self.row_frames = self.row // FRAME
        self.rows = max(1, -(-self.recording.frames // self.row_frames))
        self.notes = list(_notes(findings, self.colours))
        height = _HEADER + self.rows * (self.row_height + _ROW_GAP) + len(self.notes) * _LINE + 2 * _MARGIN
        self.image = Image.new("RGB", (_WIDTH, height), _PAPER)
        self.pen = ImageDraw.Draw(self.image)

    @property
    def lanes_height(self) -> int:
        return len(self.lanes) * (_LANE + _LANE_GAP)

    @property
    def row_height(self) -> int:
        return self.lanes_height + _STRIP + _TICKS

    def top(self, row: int) -> int:
        return _HEADER + row * (self.row_height + _ROW_GAP)

    def x(self, frame: float, row: int) -> float:
        share = (frame - row * self.row_frames) / self.row_frames
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def inside(self, span: Span, row: int) -> Span | None:
        return span.overlap(Span(start=row * self.row_frames, end=(row + 1) * self.row_frames))

    def draw_header(self, title: str) -> None:
        found = self.findings
        self.pen.text((_MARGIN, 30), title, font=_font(44), fill=_INK)
        width = self.pen.textlength(title, font=_font(44))
        badge, colour = ("ok", _GOOD) if found.ok else ("not ok", _BAD)
        left = _MARGIN + width + 28
        self._badge(left, 38, badge, colour)
        answered = sum(answer.answered for answer in found.turns)
        facts = (
            f"{self.recording.duration.total_seconds():.0f} s",
            f"{answered} of {len(found.turns)} turns answered",
            f"{sum(answer.doubled is not None for answer in found.answers)} answered twice",
            f"{len(found.changes)} handoffs",
            f"{found.overlap / timedelta(milliseconds=1):.0f} ms overlap",
        )
        self.pen.text((_MARGIN, 86), "   ·   ".join(facts), font=_font(26), fill=_SOFT)

    def draw_row(self, row: int) -> None:
        self._grid(row)
        for index, channel in enumerate(self.lanes):
            top = self.top(row) + index * (_LANE + _LANE_GAP)
            self._lane(channel, row, top)
        self._absences(row)
        self._overlaps(row)
        self._floor(row)
        self._turns(row)
        self._changes(row)

    def draw_words(self) -> None:
        top = self.top(self.rows) - 6
        for note in self.notes:
            self.pen.text((_MARGIN + 44, top), note.mark, font=_font(24), fill=note.colour, anchor="ra")
            self.pen.text((_MARGIN + 64, top), note.text, font=_font(24), fill=_INK)
            top += _LINE

    def _badge(self, left: float, top: float, text: str, colour: str) -> None:
        width = self.pen.textlength(text, font=_font(26))
        self.pen.rounded_rectangle((left, top, left + width + 36, top + 40), radius=20, fill=colour)
        self.pen.text((left + 18, top + 20), text, font=_font(26), fill=_PAPER, anchor="lm")

    def _grid(self, row: int) -> None:
        top, bottom = self.top(row), self.top(row) + self.lanes_height + _STRIP
        for tick in range(self.row // _TICK + 1):
            frame = row * self.row_frames + tick * (_TICK // FRAME)
            x = self.x(frame, row)
            self.pen.line((x, top, x, bottom + 8), fill=_RULE, width=2)
            minutes, seconds = divmod(int((frame * FRAME).total_seconds()), 60)
            label = f"{minutes}:{seconds:02d}"
            self.pen.text((x, bottom + 12), label, font=_font(20), fill=_SOFT, anchor="ma")

    def _lane(self, channel: Channel, row: int, top: int) -> None:
        colour = self.colours[channel.speaker]
        name = "caller" if channel.speaker == self.recording.caller else channel.label
        name = name if channel.voice else f"{name} (sound)"
        self.pen.text((_LEFT - 24, top + _LANE / 2), _short(name, 16), font=_font(26), fill=colour, anchor="rm")
        middle = top + _LANE / 2
        self.pen.line((_LEFT, middle, _WIDTH - _RIGHT, middle), fill=_RULE, width=2)
        flags = audible_frames(channel.samples, self.recording.frames)
        for span in spans(flags, gap=PHRASE):
            part = self.inside(span, row)
            if part is not None:
                self._bar(channel, part, row, top, colour)

    def _bar(self, channel: Channel, span: Span, row: int, top: int, colour: str) -> None:
        left, right = self.x(span.start, row), max(self.x(span.end, row), self.x(span.start, row) + 3)
        box = (left, top, right, top + _LANE)
        radius = min(10, (right - left) / 2)
        self.pen.rounded_rectangle(box, radius=radius, fill=_mixed(colour, 0.16))
        loudness = _loudness(channel, span)
        middle = top + _LANE / 2
        for x in range(round(left) + 2, round(right) - 1, 3):
            place = min(len(loudness) - 1, int((x - left) / (right - left) * len(loudness)))
            half = 2 + loudness[place] * (_LANE / 2 - 6)
            self.pen.line((x, middle - half, x, middle + half), fill=colour, width=2)

    def _absences(self, row: int) -> None:
        for left_at, back_at in self.findings.call.absences:
            span = Span(start=self.recording.frame_at(left_at), end=self.recording.frame_at(back_at))
            part = self.inside(span, row)
            if part is None:
                continue
            left, right = self.x(part.start, row), self.x(part.end, row)
            bottom = self.top(row) + self.lanes_height - _LANE_GAP
            self.pen.rectangle((left, self.top(row), right, bottom), fill=_LANE_PAPER)
            if right - left > self.pen.textlength("hung up", font=_font(22)):
                middle = ((left + right) / 2, (self.top(row) + bottom) / 2)
                self.pen.text(middle, "hung up", font=_font(22), fill=_SOFT, anchor="mm")

    def _overlaps(self, row: int) -> None:
        for overlap in self.findings.overlaps:
            part = self.inside(overlap.span, row)
            if part is not None:
                left, right = self.x(part.start, row) - 4, self.x(part.end, row) + 4
                bottom = self.top(row) + self.lanes_height
                self.pen.rectangle((left, self.top(row) - 8, right, bottom), outline=_BAD, width=4)

    def _floor(self, row: int) -> None:
        top = self.top(row) + self.lanes_height
        self.pen.text((_LEFT - 24, top + _STRIP / 2), "floor", font=_font(20), fill=_SOFT, anchor="rm")
        changes = self.findings.call.floor
        for index, change in enumerate(changes):
            end = self.recording.frame_at(changes[index + 1].at) if index + 1 < len(changes) else self.recording.frames
            span = Span(start=max(0, self.recording.frame_at(change.at)), end=end)
            part = self.inside(span, row)
            if part is None:
                continue
            colour = self._role_colour(change.role or change.agent)
            self.pen.rectangle((self.x(part.start, row), top, self.x(part.end, row), top + _STRIP), fill=colour)
            if part.start == span.start:
                x = self.x(span.start, row)
                _dashes(self.pen, x, self.top(row), top, colour)

    def _turns(self, row: int) -> None:
        number = 0
        for turn in self.findings.call.turns:
            if not turn.kind.by_caller:
                continue
            number += 1
            frame = self.recording.frame_at(turn.started)
            if not row * self.row_frames <= frame < (row + 1) * self.row_frames:
                continue
            x, y = self.x(frame, row), self.top(row) - 2
            colour = _INK if not turn.barge_in else _BAD
            self.pen.ellipse((x - 15, y - 15, x + 15, y + 15), fill=colour)
            self.pen.text((x, y), str(number), font=_font(20), fill=_PAPER, anchor="mm")

    def _changes(self, row: int) -> None:
        for change in self.findings.changes:
            if not row * self.row_frames <= change.at < (row + 1) * self.row_frames:
                continue
            x = self.x(change.at, row)
            lane = next((i for i, each in enumerate(self.lanes) if each.label == change.to_role), 0)
            y = self.top(row) + lane * (_LANE + _LANE_GAP) - 4
            text = f"{change.kind}, gap {change.voice_gap / timedelta(milliseconds=1):.0f} ms"
            anchor = "ls" if x < _WIDTH - 420 else "rs"
            place = (x + (6 if anchor == "ls" else -6), y)
            left, top, right, bottom = self.pen.textbbox(place, text, font=_font(20), anchor=anchor)
            self.pen.rounded_rectangle((left - 4, top - 3, right + 4, bottom + 3), radius=5, fill=_PAPER)
            self.pen.text(place, text, font=_font(20), fill=_INK, anchor=anchor)

    def _role_colour(self, name: str) -> str:
        speaker = next((each.speaker for each in self.lanes if name in (each.role, each.speaker)), None)
        return self.colours[speaker] if speaker is not None else _SOFT


def _lanes(findings: Findings) -> list[Channel]:
    """The caller's lane, then the agents' in the order in which they are first heard."""
    recording = findings.call.recording

    def first_heard(channel: Channel) -> tuple[bool, int]:
        heard = np.flatnonzero(audible_frames(channel.samples, recording.frames))
        return channel.speaker != recording.caller, int(heard[0]) if len(heard) else recording.frames

    return sorted(recording.channels, key=first_heard)


def _colours(lanes: Sequence[Channel], caller: str) -> dict[str, str]:
    agents = list(dict.fromkeys(channel.speaker for channel in lanes if channel.speaker != caller))
    colours = {speaker: _AGENTS[index % len(_AGENTS)] for index, speaker in enumerate(agents)}
    return colours | {caller: _CALLER}


def _notes(findings: Findings, colours: dict[str, str]) -> list[_Note]:
    """What is written below the lanes: the caller's words, and what was wrong."""
    spoken = [answer for answer in findings.answers if answer.turn.kind.by_caller]
    notes: list[_Note] = []
    for number, answer in enumerate(spoken, start=1):
        turn = answer.turn
        how = {"typed": " (typed)"}.get(turn.kind, " (barges in)" if turn.barge_in else "")
        delay = f" after {answer.delay.total_seconds():.1f} s" if answer.delay is not None else ""
        who = f"·   {answer.last_role}{delay}" if answer.last_role else "·   nobody"
        colour = next((colours[said.speaker] for said in answer.utterances[-1:]), _INK)
        notes.append(_Note(mark=f"{number}", text=f"“{_short(turn.text, 90)}”{how}   {who}", colour=colour))
    notes += [_Note(mark="!", text=_short(fault, 150), colour=_BAD) for fault in findings.faults]
    return notes


def _loudness(channel: Channel, span: Span) -> list[float]:
    """How loud each frame is, from 0 to 1, on a scale near to that of the ear."""
    samples = channel.samples[span.start * FRAME_SAMPLES : span.end * FRAME_SAMPLES].astype(np.float64)
    filled = np.concatenate([samples, np.zeros(-len(samples) % FRAME_SAMPLES)]).reshape(-1, FRAME_SAMPLES)
    levels = np.sqrt((filled**2).mean(axis=1)) if len(filled) else np.zeros(1)
    shares = np.clip(np.sqrt(levels / 9000), 0, 1)
    return [float(share) for share in shares]


def _dashes(pen: ImageDraw.ImageDraw, x: float, top: float, bottom: float, colour: str) -> None:
    y = top
    while y < bottom:
        pen.line((x, y, x, min(y + 8, bottom)), fill=colour, width=3)
        y += 15


def _mixed(colour: str, share: float) -> _Colour:
    """The colour on the paper, so thin that only `share` of it is left."""
    ink, paper = (tuple(int(value[i : i + 2], 16) for i in (1, 3, 5)) for value in (colour, _PAPER))
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(ink, paper, strict=True))
    return red, green, blue


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
