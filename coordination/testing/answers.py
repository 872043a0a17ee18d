"""Who answers which turn of the caller, and how often, judged by the sound alone.

What an agent says belongs to the last turn that was over when it began. The rest of a sentence that the caller
interrupted is no answer to the interruption.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from coordination.testing.calls import Call, Turn
from coordination.testing.hearing import PAUSE, Hearing, Span, Utterance, spans
from coordination.testing.likeness import repetitions
from coordination.testing.recording import FRAME, Channel

SEPARATE = timedelta(seconds=1.5)
"""An agent that begins again after a longer pause gives another answer; a shorter one lies within its answer."""
PHRASE = timedelta(milliseconds=250)
"""The pause between two sentences, and what a voice needs to fall silent when it is interrupted."""
_REACTION = timedelta(milliseconds=600)
"""Who begins sooner after the caller began answers the turn before: no agent answers what it has not heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What followed one turn."""

    turn: Turn
    window: Span
    """From the turn's end to the end of the next one."""
    utterances: tuple[Utterance, ...]
    previous: str | None
    """The role that spoke last before."""
    leftover: timedelta | None
    """For how long an interrupted agent went on after the caller began; None if nobody was interrupted."""
    doubled: str | None = None
    """Why the turn counts as answered twice; None if it was not."""

    @property
    def answered(self) -> bool:
        return bool(self.utterances)

    @property
    def last_role(self) -> str | None:
        return self.utterances[-1].label if self.utterances else None

    @property
    def delay(self) -> timedelta | None:
        """From the turn's end to the first sound of the answer."""
        return (self.utterances[0].span.start - self.window.start) * FRAME if self.utterances else None


def answers(call: Call, hearing: Hearing) -> tuple[Answer, ...]:
    """What followed each turn, in order."""
    found: list[Answer] = []
    previous: str | None = None
    for turn, (window, latest) in zip(call.turns, _windows(call, hearing), strict=True):
        utterances = _utterances(turn, hearing, window, latest)
        changes = _allowed_changes(turn, previous)
        answer = Answer(
            turn=turn,
            window=window,
            utterances=utterances,
            previous=previous,
            leftover=_leftover(turn, hearing),
            doubled=_doubled(turn, _runs(utterances), changes, hearing),
        )
        found.append(answer)
        previous = answer.last_role or previous
    return tuple(found)


def _windows(call: Call, hearing: Hearing) -> Iterator[tuple[Span, int]]:
    """For each turn the frames in which it can be answered, and the frame by which an answer must have begun."""
    recording = hearing.recording
    end = recording.frames
    for turn, following in zip(call.turns, [*call.turns[1:], None], strict=True):
        start = max(0, min(end, recording.frame_at(turn.ended)))
        if following is None:
            yield Span(start=start, end=end), end
            continue
        next_start = max(start, min(end, recording.frame_at(following.started)))
        next_end = max(next_start, min(end, recording.frame_at(following.ended)))
        yield Span(start=start, end=next_end), min(next_end, next_start + _REACTION // FRAME)


def _utterances(turn: Turn, hearing: Hearing, window: Span, latest: int) -> tuple[Utterance, ...]:
    """What agents began to say before the frame `latest`, and after they can have heard what they answer.

    One that begins while the caller still speaks counts if it goes on after that; else it was a false start.
    """
    heard_from = min(window.start, max(0, hearing.recording.frame_at(turn.started)) + _REACTION // FRAME)
    found: list[Utterance] = []
    for channel in _voices(hearing):
        rest = _rest(hearing, channel, heard_from)
        for span in spans(hearing.audible(channel.speaker)[rest : window.end], gap=PAUSE):
            placed = Span(start=span.start + rest, end=span.end + rest)
            if placed.start < latest and placed.end > window.start + PHRASE // FRAME:
                found.append(Utterance(speaker=channel.speaker, role=channel.role, span=placed))
    return tuple(sorted(found, key=lambda utterance: utterance.span))


def _rest(hearing: Hearing, channel: Channel, start: int) -> int:
    """Where the rest of what the agent was saying at `start` ends; `start` itself if it was silent."""
    flags = hearing.audible(channel.speaker)
    begin = max(0, start - PHRASE // FRAME)
    if not flags[begin:start].any():
        return start
    return max(start, begin + spans(flags[begin:], gap=PHRASE)[0].end)


def _leftover(turn: Turn, hearing: Hearing) -> timedelta | None:
    """How long the interrupted agents went on after the caller had begun to speak.

    What begins after the caller's last word is an answer already, however soon it comes.
    """
    if not turn.barge_in:
        return None
    recording = hearing.recording
    begin, end = (max(0, recording.frame_at(moment)) for moment in (turn.started, turn.ended))
    longest = 0
    for channel in _voices(hearing):
        if _rest(hearing, channel, begin) > begin:
            flags = hearing.audible(channel.speaker)[begin : end + PHRASE // FRAME]
            longest = max([longest, *(span.end for span in spans(flags, gap=PAUSE)[:1])])
    return longest * FRAME


def _allowed_changes(turn: Turn, previous: str | None) -> int:
    """One change of voice, if the one who is to answer is not the one who spoke last, or if anybody may.

    And one for each agent that finishes what another has begun, where that is expected.
    """
    if turn.expected is None:
        return 1
    handed = turn.expected.role is not None and previous is not None and turn.expected.role != previous
    return int(handed) + turn.expected.voices - 1


def _doubled(turn: Turn, runs: list[list[Utterance]], allowed_changes: int, hearing: Hearing) -> str | None:
    """Why the turn counts as answered twice; None if it was not."""
    if len(runs) - 1 > allowed_changes:
        return f"{' and then '.join(run[0].label for run in runs)} spoke"
    if not runs or not turn.kind.by_caller:
        return None
    last = runs[-1]
    pauses = [(later.span.start - earlier.span.end) * FRAME for earlier, later in pairwise(last)]
    parts = 1 + sum(pause > SEPARATE for pause in pauses)
    if parts > (turn.expected.parts if turn.expected else 1):
        return f"{last[0].label} answered {parts} times"
    return next((said for run in runs if (said := _repeated(run, hearing))), None)


def _runs(utterances: tuple[Utterance, ...]) -> list[list[Utterance]]:
    """Consecutive utterances of one speaker, together."""
    runs: list[list[Utterance]] = []
    for utterance in utterances:
        if runs and runs[-1][0].speaker == utterance.speaker:
            runs[-1].append(utterance)
        else:
            runs.append([utterance])
    return runs


def _repeated(run: list[Utterance], hearing: Hearing) -> str | None:
    """Somebody who says the same sentence twice in one answer gave it twice."""
    channel = next(each for each in _voices(hearing) if each.speaker == run[0].speaker)
    flags = hearing.audible(channel.speaker)
    phrases = [
        Span(start=span.start + utterance.span.start, end=span.end + utterance.span.start)
        for utterance in run
        for span in spans(flags[utterance.span.start : utterance.span.end], gap=PHRASE)
    ]
    return f"{channel.label} said the same thing twice" if repetitions(channel.samples, phrases) else None


def _voices(hearing: Hearing) -> tuple[Channel, ...]:
    return tuple(channel for channel in hearing.recording.agents if channel.voice)
