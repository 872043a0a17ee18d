"""Judges the history of a run: which promises were broken, when, and by what evidence.

Nothing here knows how the history came about. A promise that a fault excuses is declared in the history itself, as a
`Window`; two voices at once are never excused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import combinations, pairwise
from typing import Final

from coordination.testing.history import (
    Answer,
    CallEnded,
    CallerTurn,
    Entry,
    FaultStruck,
    FloorEvent,
    History,
    KeyLeft,
    Listening,
    Presence,
    Voice,
    Window,
)
from coordination.testing.tenure import grants, tenures

_SKEW: Final = 0.02
"""Seconds by which moments may be off: two frames."""


class Rule(StrEnum):
    """What a run must keep."""

    ONE_VOICE = "one-voice"
    """The caller never hears two agents at once."""
    ONE_HOLDER = "one-holder"
    """The floor is granted to nobody while another agent holds it."""
    FENCES_GROW = "fences-grow"
    """Each grant of a room has a higher fence than all before."""
    FLOOR_TO_SPEAK = "floor-to-speak"
    """Whoever is heard holds the floor, or lost it a moment ago."""
    ANSWERED = "answered"
    """Each turn of the caller is answered."""
    ANSWERED_ONCE = "answered-once"
    """No turn of the caller is answered twice."""
    A_HOLDER = "a-holder"
    """A call has an agent with the floor, apart from a moment after one was lost."""
    UNTOUCHED = "untouched"
    """Nobody whose process was left alone is silenced, removed or replaced."""
    SILENCED = "silenced"
    """An agent that was silenced is out of the room, and stays so."""
    ONE_OF_A_ROLE = "one-of-a-role"
    """No two live agents of one role are in a room for longer than a moment: a lost one is replaced once."""
    NOTHING_LEFT = "nothing-left"
    """A minute after a call nothing of it is in Redis, and no key stays for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long the moments are that rules speak of."""

    together: timedelta = timedelta(milliseconds=5)
    """How long two voices may be heard at once. Frames of two tracks lie on one grid: less than one of them in common
    is arithmetic, not sound. On a machine that is short of CPU time the listener's own jitter buffers shift one voice
    against the other: give what they may."""
    tail: timedelta = timedelta(milliseconds=450)
    """How long a voice is heard after its floor: 300 ms of its own (docs/guarantees), and the way to the caller."""
    answer: timedelta = timedelta(seconds=12)
    """From the end of a turn to its answer's begin."""
    holderless: timedelta = timedelta(seconds=5)
    """From the loss of a holder to the next grant."""
    arrival: timedelta = timedelta(seconds=20)
    """From the begin of a call to its first grant."""
    gone: timedelta = timedelta(seconds=1)
    """How long an agent that was silenced may still be in the room, and one that comes back."""
    twins: timedelta = timedelta(seconds=3)
    """How long a surplus agent may take to find out that its role is served, and to leave."""
    linger: timedelta = timedelta(seconds=60)
    """How long a key of a call may outlive it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One promise that was broken."""

    rule: Rule
    call: str
    at: float
    text: str
    """What happened, for people."""
    evidence: tuple[Entry, ...]

    def __str__(self) -> str:
        where = f" in call {self.call}" if self.call else ""
        return f"{self.rule} at {self.at:.3f}{where}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Excused:
    """A promise that was broken where the history declares that it may be."""

    violation: Violation
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The outcome, with what was looked at: a run in which nothing happened proves nothing."""

    violations: tuple[Violation, ...]
    excused: tuple[Excused, ...]
    calls: int
    turns: int
    answered: int
    grants: int
    voices: int
    faults: int

    @property
    def ok(self) -> bool:
        return not self.violations

    def broken(self, rule: Rule) -> tuple[Violation, ...]:
        return tuple(each for each in self.violations if each.rule is rule)

    def __str__(self) -> str:
        looked = (
            f"{self.calls} calls, {self.answered} of {self.turns} turns answered, {self.grants} grants, "
            f"{self.faults} faults, {len(self.excused)} excused"
        )
        found = "".join(f"\n  {violation}" for violation in self.violations)
        return f"{looked}: {len(self.violations) or 'no'} violations{found}"


def check(history: History, *, bounds: Bounds | None = None) -> Judgement:
    """Judges a run."""
    limits = bounds or Bounds()
    found: list[Violation] = list(_permanent_keys(history))
    for call in history.calls:
        for rule in _RULES:
            found += rule(history, call, limits)
    windows = history.of(Window)
    excused = [Excused(violation=each, window=window) for each in found if (window := _window(each, windows))]
    forgiven = {id(each.violation) for each in excused}
    turns, complete = history.of(CallerTurn), {(each.call, each.turn) for each in history.of(Answer) if each.complete}
    return Judgement(
        violations=tuple(sorted((v for v in found if id(v) not in forgiven), key=lambda v: v.at)),
        excused=tuple(excused),
        calls=len(history.calls),
        turns=len(turns),
        answered=sum((turn.call, turn.turn) in complete for turn in turns),
        grants=sum(len(grants(history, call)) for call in history.calls),
        voices=len(history.of(Voice)),
        faults=len(history.of(FaultStruck)),
    )


def _window(violation: Violation, windows: Sequence[Window]) -> Window | None:
    if violation.rule is Rule.ONE_VOICE:
        return None
    return next(
        (
            window
            for window in windows
            if window.rule == violation.rule
            and window.call in ("", violation.call)
            and window.at <= violation.at <= window.until
        ),
        None,
    )


# -- rules -------------------------------------------------------------------------------------------------------------


def _one_voice(history: History, call: str, bounds: Bounds) -> Iterator[Violation]:
    for one, other in combinations(history.of(Voice, call=call), 2):
        begin, end = max(one.at, other.at), min(one.until, other.until)
        if one.agent != other.agent and end - begin > bounds.together.total_seconds():
            text = f"{one.agent} and {other.agent} are heard at once for {1000 * (end - begin):.0f} ms"
            yield Violation(rule=Rule.ONE_VOICE, call=call, at=begin, text=text, evidence=(one, other))


def _one_holder(history: History, call: str, _: Bounds) -> Iterator[Violation]:
    for before, after in pairwise(tenures(history, call)):
        if before.agent != after.agent and before.usurped_by is after.grant:
            text = f"{after.agent} is granted the floor (fence {after.grant.fence}) while {before.agent} holds it"
            evidence = (before.grant, after.grant)
            yield Violation(rule=Rule.ONE_HOLDER, call=call, at=after.grant.at, text=text, evidence=evidence)


def _fences_grow(history: History, call: str, _: Bounds) -> Iterator[Violation]:
    highest: FloorEvent | None = None
    for grant in grants(history, call):
        # A holder that claims its floor from a server that forgot it keeps its fence.
        again = highest is not None and (grant.fence, grant.agent) == (highest.fence, highest.agent)
        if highest is not None and grant.fence <= highest.fence and not again:
            text = f"{grant.agent} is granted fence {grant.fence} after {highest.agent} was granted {highest.fence}"
            yield Violation(rule=Rule.FENCES_GROW, call=call, at=grant.at, text=text, evidence=(highest, grant))
        elif highest is None or grant.fence > highest.fence:
            highest = grant


def _floor_to_speak(history: History, call: str, bounds: Bounds) -> Iterator[Violation]:
    tail = bounds.tail.total_seconds()
    held = tenures(history, call)
    for voice in history.of(Voice, call=call):
        own = [each for each in held if each.agent == voice.agent]
        begin = voice.at
        for tenure in own:
            # The grant is stamped before anybody hears of it, so a voice never begins before its tenure.
            if tenure.at <= begin + _SKEW:
                begin = max(begin, tenure.heard_until + tail)
        if voice.until - begin > _SKEW:
            text = f"{voice.agent} is heard for {1000 * (voice.until - begin):.0f} ms without the floor"
            evidence = (voice, *(each.grant for each in own[-1:]))
            yield Violation(rule=Rule.FLOOR_TO_SPEAK, call=call, at=begin, text=text, evidence=evidence)


def _answered(history: History, call: str, bounds: Bounds) -> Iterator[Violation]:
    answered = {each.turn for each in history.of(Answer, call=call) if each.complete}
    ends = [each.at for each in history.of(CallEnded, call=call)]
    for turn in history.of(CallerTurn, call=call):
        due = turn.until + bounds.answer.total_seconds()
        if turn.turn in answered or any(end < due for end in ends):
            continue
        text = f"the caller's turn {turn.turn} ({turn.text!r}) is not answered"
        yield Violation(rule=Rule.ANSWERED, call=call, at=turn.until, text=text, evidence=(turn,))


def _answered_once(history: History, call: str, _: Bounds) -> Iterator[Violation]:
    first: dict[str, Answer] = {}
    turns = {turn.turn: turn for turn in history.of(CallerTurn, call=call)}
    for answer in history.of(Answer, call=call):
        if not answer.complete:
            continue
        before = first.setdefault(answer.turn, answer)
        if before is not answer:
            text = f"the caller's turn {answer.turn} is answered by {before.agent}, and again by {answer.agent}"
            evidence = tuple(each for each in (turns.get(answer.turn), before, answer) if each is not None)
            yield Violation(rule=Rule.ANSWERED_ONCE, call=call, at=answer.at, text=text, evidence=evidence)


def _a_holder(history: History, call: str, bounds: Bounds) -> Iterator[Violation]:
    held = tenures(history, call)
    heard = history.of(Listening, call=call)
    over = min(
        (each.at for each in history.of(CallEnded, call=call)),
        default=max((each.until for each in heard), default=0.0),
    )
    windows = [window for window in history.of(Window, call=call) if window.rule == Rule.A_HOLDER]
    begins = [each.at for each in heard[:1]]
    arrival, bound = bounds.arrival.total_seconds(), bounds.holderless.total_seconds()
    losses: list[tuple[float, float, str, tuple[Entry, ...]]] = [(at, arrival, "the call began", ()) for at in begins]
    losses += [(each.until, bound, f"{each.agent} lost it", (each.grant,)) for each in held if each.until is not None]
    for lost, longest, why, evidence in losses:
        following = min((each.at for each in held if each.heard_until > lost), default=over)
        begin, end = lost, min(max(following, lost), over)
        excused = sum(max(0.0, min(end, each.until) - max(begin, each.at)) for each in windows)
        if end - begin - excused > longest:
            text = f"for {end - begin:.1f} s nobody holds the floor after {why}"
            yield Violation(rule=Rule.A_HOLDER, call=call, at=lost, text=text, evidence=evidence)


def _untouched(history: History, call: str, _: Bounds) -> Iterator[Violation]:
    struck = [(fault.at, set(fault.agents)) for fault in history.of(FaultStruck, call=call)]
    for event in history.of(FloorEvent, call=call):
        against = event.kind == "silence" or (event.kind == "remove" and event.reason != "operator")
        hit = any(at <= event.at and event.agent in agents for at, agents in struck)
        if against and event.agent and not hit:
            text = f"{event.agent} is hit by {event.kind!r} ({event.reason}), though its process was left alone"
            yield Violation(rule=Rule.UNTOUCHED, call=call, at=event.at, text=text, evidence=(event,))


def _silenced(history: History, call: str, bounds: Bounds) -> Iterator[Violation]:
    ends = [entry.at for entry in history.of(CallEnded, call=call)]
    silenced: dict[str, FloorEvent] = {}
    for event in history.of(FloorEvent, call=call):
        if event.kind == "silence":
            silenced.setdefault(event.agent, event)  # What is repeated later excuses nothing.
    for came, left in _stays(history, call, min(ends, default=float("inf"))):
        event = silenced.get(came.who)
        stayed = left - max(came.at, event.at) if event is not None else 0.0
        if event is not None and stayed > bounds.gone.total_seconds():
            text = f"{came.who} is in the room for {stayed:.1f} s after it was silenced ({event.reason})"
            yield Violation(rule=Rule.SILENCED, call=call, at=event.at, text=text, evidence=(event, came))


def _stays(history: History, call: str, over: float) -> Iterator[tuple[Presence, float]]:
    """Each time that an agent was in the room: how it came, and when it left."""
    seen = [entry for entry in history.of(Presence, call=call) if entry.agent]
    for came in seen:
        if came.present:
            left = (entry.at for entry in seen if entry.who == came.who and entry.at >= came.at and not entry.present)
            yield came, min(next(left, over), over)


def _one_of_a_role(history: History, call: str, bounds: Bounds) -> Iterator[Violation]:
    deaths = {agent: fault.at for fault in history.of(FaultStruck, call=call) for agent in fault.agents}
    over = min((entry.at for entry in history.of(CallEnded, call=call)), default=float("inf"))
    spans = [(came, min(left, deaths.get(came.who, over))) for came, left in _stays(history, call, over) if came.role]
    for (one, until), (other, ended) in combinations(spans, 2):
        together = min(until, ended) - max(one.at, other.at)
        if one.role == other.role and one.who != other.who and together > bounds.twins.total_seconds():
            text = f"{one.who} and {other.who} are both {one.role} in the room for {together:.1f} s"
            at = max(one.at, other.at)
            yield Violation(rule=Rule.ONE_OF_A_ROLE, call=call, at=at, text=text, evidence=(one, other))


def _nothing_left(history: History, call: str, bounds: Bounds) -> Iterator[Violation]:
    for ended in history.of(CallEnded, call=call)[:1]:
        for key in history.of(KeyLeft, call=call):
            # Looked at early, its time to live proves when it goes.
            gone = key.at + (key.ttl or 0.0)
            if key.call == call and key.ttl is not None and gone - ended.at > bounds.linger.total_seconds():
                text = f"{key.key} outlives the call by {gone - ended.at:.0f} s"
                yield Violation(rule=Rule.NOTHING_LEFT, call=call, at=key.at, text=text, evidence=(ended, key))


def _permanent_keys(history: History) -> Iterator[Violation]:
    for key in history.of(KeyLeft):
        if key.ttl is None:
            text = f"{key.key} has no time to live"
            yield Violation(rule=Rule.NOTHING_LEFT, call=key.call, at=key.at, text=text, evidence=(key,))


_RULES: tuple[Callable[[History, str, Bounds], Iterator[Violation]], ...] = (
    _one_voice,
    _one_holder,
    _fences_grow,
    _floor_to_speak,
    _answered,
    _answered_once,
    _a_holder,
    _untouched,
    _silenced,
    _one_of_a_role,
    _nothing_left,
)
