"""The checker passes a history in which all was well, and finds whatever was not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordination.errors import InvalidArgument
from coordination.testing.checker import Rule, check
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
    RunStarted,
    Voice,
    Window,
)

CALL = "call-1"


def event(at: float, kind: str, agent: str, fence: int = 0, **more: str) -> FloorEvent:
    return FloorEvent(at=at, call=CALL, kind=kind, agent=agent, fence=fence, role=agent[:1], **more)  # pyright: ignore[reportArgumentType]


def voice(at: float, until: float, agent: str) -> Voice:
    return Voice(call=CALL, agent=agent, at=at, until=until)


def turn(at: float, name: str) -> CallerTurn:
    return CallerTurn(call=CALL, turn=name, at=at, until=at + 1.0, text=name)


def answer(at: float, name: str, agent: str, *, complete: bool = True) -> Answer:
    return Answer(call=CALL, turn=name, agent=agent, at=at, until=at + 1.0, complete=complete)


def present(at: float, agent: str, *, there: bool = True) -> Presence:
    return Presence(call=CALL, at=at, who=agent, agent=True, present=there, role=agent[:1])


def fault(at: float, *agents: str, kind: str = "kill", until: float | None = None) -> FaultStruck:
    return FaultStruck(at=at, until=until or at, kind=kind, target="a job", agents=agents)


def good() -> list[Entry]:
    """A call: `a1` answers, hands over to `b1`, which is killed in mid-answer; `a1` takes over and answers that."""
    return [
        RunStarted(at=0.0, wall=1000.0, seed=1),
        Listening(call=CALL, at=1.0, until=40.0),
        present(1.2, "a1"),
        event(1.5, "grant", "a1", 100),
        event(1.6, "grant", "a1", 100, source="room"),
        voice(2.0, 3.0, "a1"),
        turn(4.0, "one"),
        voice(5.5, 6.5, "a1"),
        answer(5.5, "one", "a1"),
        present(6.0, "b1"),
        event(8.0, "offer", "a1", 100),
        event(8.5, "grant", "b1", 200),
        event(8.5, "commit", "b1", 200),
        voice(8.7, 9.5, "b1"),
        turn(10.0, "two"),
        voice(11.5, 12.05, "b1"),
        answer(11.5, "two", "b1", complete=False),
        fault(12.0, "b1"),
        event(14.1, "silence", "b1", 200),
        event(14.2, "remove", "b1", reason="its lease of the floor expired"),
        present(14.2, "b1", there=False),
        event(14.3, "grant", "a1", 300),
        voice(14.5, 15.5, "a1"),
        answer(14.5, "two", "a1"),
        present(16.0, "b2"),
        CallEnded(call=CALL, at=40.0),
        event(41.0, "release", "a1", 300),
        KeyLeft(at=45.0, call=CALL, key="baton:1:{t/r}:floor", ttl=50.0),
    ]


def test_a_good_history_is_found_good_and_counted() -> None:
    judgement = check(History(good()))

    assert judgement.violations == ()
    assert (judgement.calls, judgement.turns, judgement.answered) == (1, 2, 2)
    assert (judgement.grants, judgement.faults, judgement.voices) == (3, 1, 5)


def without(wrong: Callable[[Entry], bool], *more: Entry) -> list[Entry]:
    return [entry for entry in good() if not wrong(entry)] + list(more)


def swapped(kind: type[Entry], index: int, **values: object) -> list[Entry]:
    """The good history with one entry changed: the one of that kind and place."""
    chosen = [entry for entry in good() if isinstance(entry, kind)][index]
    return [replace(entry, **values) if entry == chosen else entry for entry in good()]  # pyright: ignore[reportArgumentType]


def is_event(entry: Entry, kind: str, fence: int) -> bool:
    return isinstance(entry, FloorEvent) and (entry.kind, entry.fence) == (kind, fence)


BAD: list[tuple[str, Rule, list[Entry]]] = [
    # -- two voices
    ("the old voice goes on under the new one", Rule.ONE_VOICE, [*good(), voice(8.6, 9.0, "a1")]),
    ("one frame of two voices", Rule.ONE_VOICE, [*good(), voice(9.49, 9.6, "a1")]),
    ("a voice lies within another one", Rule.ONE_VOICE, [*good(), voice(5.8, 5.9, "b1")]),
    # -- two holders
    ("a grant while the holder lives", Rule.ONE_HOLDER, [*good(), event(6.0, "grant", "c1", 150)]),
    ("a grant before the dead one is silenced", Rule.ONE_HOLDER, without(lambda e: is_event(e, "commit", 200))),
    (
        "two grants from two servers",
        Rule.ONE_HOLDER,
        [*good(), event(20.0, "grant", "c1", 400, source="room"), event(20.0, "grant", "a1", 401, source="room")],
    ),
    # -- fences
    ("a fence goes back", Rule.FENCES_GROW, swapped(FloorEvent, 7, fence=90)),
    ("one fence for two agents", Rule.FENCES_GROW, [*good(), event(41.5, "grant", "c1", 300)]),
    (
        "a fence of the same agent goes back",
        Rule.FENCES_GROW,
        [*good(), event(42.0, "grant", "a1", 120)],
    ),
    # -- speaking without the floor
    ("a standby speaks", Rule.FLOOR_TO_SPEAK, [*good(), voice(17.0, 17.5, "b2")]),
    ("the old one speaks on for a second", Rule.FLOOR_TO_SPEAK, [*good(), voice(9.6, 9.9, "a1")]),
    ("a dead one is heard again", Rule.FLOOR_TO_SPEAK, [*good(), voice(13.0, 13.2, "b1")]),
    ("a voice begins before its grant", Rule.FLOOR_TO_SPEAK, [*good(), voice(1.2, 1.9, "a1")]),
    # -- answers
    ("a turn is not answered", Rule.ANSWERED, [*good(), turn(18.0, "three")]),
    ("a turn is answered in part only", Rule.ANSWERED, without(lambda e: isinstance(e, Answer) and e.at == 14.5)),
    ("a turn is answered twice by one", Rule.ANSWERED_ONCE, [*good(), answer(20.0, "one", "a1")]),
    ("a turn is answered twice by two", Rule.ANSWERED_ONCE, swapped(Answer, 1, complete=True)),
    # -- nobody there
    ("nobody follows the dead one", Rule.A_HOLDER, without(lambda e: is_event(e, "grant", 300))),
    ("the follower is late", Rule.A_HOLDER, swapped(FloorEvent, 7, at=17.5)),
    ("nobody ever comes", Rule.A_HOLDER, without(lambda e: isinstance(e, FloorEvent) and e.kind == "grant")),
    ("the floor is given back and stays free", Rule.A_HOLDER, [*good(), event(20.0, "release", "a1", 300)]),
    # -- hit for nothing
    ("a live agent is silenced", Rule.UNTOUCHED, [*good(), event(20.0, "silence", "a1", 300)]),
    ("a live agent is struck off", Rule.UNTOUCHED, [*good(), event(20.0, "remove", "b2", reason="no heartbeat")]),
    ("an agent is silenced before it is hurt", Rule.UNTOUCHED, swapped(FaultStruck, 0, at=14.15)),
    # -- silenced, and still there
    ("a silenced agent stays", Rule.SILENCED, swapped(Presence, 2, at=16.0)),
    ("a silenced agent comes back", Rule.SILENCED, [*good(), present(20.0, "b1"), present(22.0, "b1", there=False)]),
    # -- replaced twice
    ("two replacements", Rule.ONE_OF_A_ROLE, [*good(), present(16.5, "b3")]),
    ("a replacement of a live one", Rule.ONE_OF_A_ROLE, [*good(), present(20.0, "a2")]),
    # -- left behind
    ("a key stays too long", Rule.NOTHING_LEFT, swapped(KeyLeft, 0, ttl=56.0)),
    ("a key stays for ever", Rule.NOTHING_LEFT, swapped(KeyLeft, 0, ttl=None)),
    ("a key of nobody stays for ever", Rule.NOTHING_LEFT, [*good(), KeyLeft(at=45.0, key="x", ttl=None)]),
]


@pytest.mark.parametrize(("rule", "entries"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_what_is_wrong_is_found(rule: Rule, entries: list[Entry]) -> None:
    judgement = check(History(entries))

    assert judgement.broken(rule), str(judgement)
    assert all(violation.evidence or rule is Rule.A_HOLDER for violation in judgement.broken(rule))
    assert str(rule) in str(judgement)


def test_every_rule_has_histories_that_break_it() -> None:
    counts = {rule: sum(each[1] is rule for each in BAD) for rule in Rule}

    assert {rule: count for rule, count in counts.items() if count < 2} == {}


def test_only_what_is_wrong_is_found() -> None:
    """A history with one flaw breaks few rules: the checker does not simply cry."""
    for name, rule, entries in BAD:
        broken = {violation.rule for violation in check(History(entries)).violations}

        assert len(broken) <= 3, (name, rule, broken)


def test_a_declared_window_excuses_what_lies_in_it_and_is_counted() -> None:
    lost = [*good(), turn(18.0, "three")]
    window = Window(at=18.5, until=19.5, rule=Rule.ANSWERED, reason="the words were lost with the process")

    assert check(History(lost)).broken(Rule.ANSWERED)
    judgement = check(History([*lost, window]))
    assert judgement.ok
    assert [each.window for each in judgement.excused] == [window]
    assert not check(History([*lost, replace(window, at=30.0, until=31.0)])).ok
    assert not check(History([*lost, replace(window, call="call-2")])).ok


def test_a_floor_that_nobody_can_grant_is_not_missed_for_that_long() -> None:
    late = swapped(FloorEvent, 7, at=18.0)
    window = Window(at=13.0, until=16.0, rule=Rule.A_HOLDER, reason="Redis is away")

    assert check(History(late)).broken(Rule.A_HOLDER)
    assert not check(History([*late, window])).broken(Rule.A_HOLDER)
    assert check(History([*late, replace(window, until=13.5)])).broken(Rule.A_HOLDER)


def test_two_voices_are_never_excused() -> None:
    window = Window(at=0.0, until=100.0, rule=Rule.ONE_VOICE, reason="none is good enough")

    assert check(History([*good(), window, voice(8.6, 9.0, "a1")])).broken(Rule.ONE_VOICE)


def test_a_turn_that_the_caller_did_not_wait_for_needs_no_answer() -> None:
    assert check(History([*good(), turn(35.0, "bye")])).ok


def test_a_holder_that_claims_its_floor_again_keeps_its_fence() -> None:
    """After a restart without data the holder claims under the fence that it has."""
    assert check(History([*good(), event(20.0, "grant", "a1", 300), voice(20.5, 21.0, "a1")])).ok


def test_a_holder_that_was_away_with_the_media_server_has_kept_its_floor() -> None:
    """When livekit-server restarts, everybody leaves and comes back."""
    away = [present(20.0, "a1", there=False), voice(22.0, 23.0, "a1")]

    assert check(History([*good(), *away, present(21.0, "a1")])).ok
    assert check(History([*good(), *away])).broken(Rule.FLOOR_TO_SPEAK)


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    with History(good(), path=tmp_path / "run" / "history.jsonl") as history:
        history.append(voice(30.0, 31.0, "a1"))

    again = History.read(tmp_path / "run" / "history.jsonl")

    assert list(again) == list(history)
    assert check(again).ok


def test_a_line_that_is_no_entry_is_named(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"entry": "end", "call": "c", "at": 1.0}\n{"entry": "never"}\n')

    with pytest.raises(InvalidArgument, match="Line 2"):
        History.read(tmp_path / "history.jsonl")


def test_an_unfinished_history_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    history = History(path=tmp_path / "history.jsonl")
    history.append(CallEnded(call=CALL, at=1.0))

    assert len(History.read(tmp_path / "history.jsonl")) == 1
    history.close()
