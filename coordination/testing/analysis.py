"""Judges a call by what the caller heard: answers, double answers, overlaps, greetings, handoffs.

The judgement errs on the side of the caller: whatever sounds wrong makes a fault, with the moment at which to listen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from coordination.testing.answers import SEPARATE, Answer, answers
from coordination.testing.calls import Call, TurnKind
from coordination.testing.changes import VoiceChange, voice_changes
from coordination.testing.hearing import Hearing, Overlap, Utterance
from coordination.testing.reading import Reader
from coordination.testing.recording import FRAME, FRAME_SAMPLES

STOPS_WITHIN = timedelta(seconds=1.5)
"""An agent that talks on for longer while the caller does is not listening."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """An agent said a phrase that only the opening of a call may hold."""

    utterance: Utterance
    phrase: str
    opening: bool
    """Whether this is the call's opening, the one place for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was heard, measured and judged."""

    call: Call
    answers: tuple[Answer, ...]
    overlaps: tuple[Overlap, ...]
    greetings: tuple[Greeting, ...]
    changes: tuple[VoiceChange, ...]
    faults: tuple[str, ...]
    """What was wrong, in words for people; empty for a call that went well."""

    @property
    def ok(self) -> bool:
        return not self.faults

    @property
    def overlap(self) -> timedelta:
        """For how long two agents were heard at once, all in all."""
        return sum((overlap.span.duration for overlap in self.overlaps), timedelta(0))

    @property
    def turns(self) -> tuple[Answer, ...]:
        """The turns of the caller that require an answer, with what followed them."""
        return tuple(each for each in self.answers if each.turn.kind.by_caller and each.turn.expected)

    @property
    def second_greetings(self) -> tuple[Greeting, ...]:
        return tuple(greeting for greeting in self.greetings if not greeting.opening)


def analyse(call: Call, *, greetings: Sequence[str] | Reader = ()) -> Findings:
    """Judges a call. `greetings` are phrases, or a reader of them, that may be heard once, when the call begins.

    Takes about a tenth of the time that the agents spoke, on one core: run it in a thread beside live audio.
    Raises `InvalidArgument` for a phrase that cannot be recognised.
    """
    hearing = Hearing(call.recording)
    found = answers(call, hearing)
    changes = voice_changes(call, hearing, found)
    overlaps = hearing.overlaps()
    reader = greetings if isinstance(greetings, Reader) else Reader(greetings)
    heard = tuple(_greetings(hearing, found, reader)) if reader.phrases else ()
    faults = [
        *_overlap_faults(overlaps),
        *(fault for answer in found for fault in _answer_faults(answer)),
        *_greeting_faults(heard),
        *_handoff_faults(found, changes),
    ]
    return Findings(
        call=call,
        answers=found,
        overlaps=overlaps,
        greetings=heard,
        changes=changes,
        faults=tuple(faults),
    )


def moment(frame: int) -> str:
    """A place in a recording, for people: minutes, seconds, tenths."""
    minutes, seconds = divmod((frame * FRAME).total_seconds(), 60)
    return f"{int(minutes)}:{seconds:04.1f}"


def _greetings(hearing: Hearing, found: tuple[Answer, ...], reader: Reader) -> Iterator[Greeting]:
    """All greetings; the first is the opening if it is said before the caller's first turn."""
    channels = {channel.speaker: channel for channel in hearing.recording.agents if channel.voice}
    opened = False
    turns = [answer.turn for answer in found if answer.turn.kind is not TurnKind.OPENING]
    first_turn = hearing.recording.frame_at(turns[0].started) if turns else None
    for utterance in hearing.utterances(pause=SEPARATE):
        span = utterance.span
        samples = channels[utterance.speaker].samples[span.start * FRAME_SAMPLES : span.end * FRAME_SAMPLES]
        phrases = reader.find(samples)
        if not phrases:
            continue
        opening = not opened and (first_turn is None or span.start < first_turn)
        opened = True
        yield Greeting(utterance=utterance, phrase=phrases[0].text, opening=opening)


def _overlap_faults(overlaps: tuple[Overlap, ...]) -> Iterator[str]:
    for overlap in overlaps:
        one, other = overlap.labels
        yield f"{one} and {other} are heard at once for {overlap.span.milliseconds} ms at {moment(overlap.span.start)}"


def _greeting_faults(greetings: tuple[Greeting, ...]) -> Iterator[str]:
    for greeting in greetings:
        if not greeting.opening:
            said = greeting.utterance
            yield f"{said.label} greets as if the call were new ({greeting.phrase!r}) at {moment(said.span.start)}"


def _answer_faults(answer: Answer) -> Iterator[str]:
    turn, where = answer.turn, moment(answer.window.start)
    what = f"{turn.kind} turn {turn.text!r}" if turn.text else f"{turn.kind}"
    if answer.doubled:
        yield f"The {what} at {where} is answered twice: {answer.doubled}"
    if answer.leftover is not None and answer.leftover > STOPS_WITHIN:
        seconds = f"{answer.leftover.total_seconds():.1f} s"
        yield f"An agent talks on for {seconds} when interrupted by {turn.text!r} at {where}"
    if turn.expected is None:
        return
    wanted = turn.expected.role or answer.previous
    if not answer.answered:
        yield f"Nobody answers the {what} at {where}"
    elif wanted is not None and answer.last_role != wanted:
        yield f"The {what} at {where} is answered by {answer.last_role}, not by {wanted}"


def _handoff_faults(found: tuple[Answer, ...], changes: tuple[VoiceChange, ...]) -> Iterator[str]:
    for answer in found:
        expected = answer.turn.expected
        inside = [change for change in changes if _is_in(change, answer)]
        for change in inside:
            if expected is None or expected.handoff is None or change.to_role != expected.role:
                continue
            if change.kind is not expected.handoff:
                yield (
                    f"The handoff from {change.from_role} to {change.to_role} at {moment(change.at)} is to an agent "
                    f"that was {_CAME[change.kind]}, not {_CAME[expected.handoff]}"
                )


_CAME = {"standby": "in the room already", "dispatched": "sent for"}


def _is_in(change: VoiceChange, answer: Answer) -> bool:
    return any(utterance.span.start == change.at for utterance in answer.utterances)
