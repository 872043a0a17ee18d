"""The measuring instrument, measured: recordings made by hand, of which it is known what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import pytest

from coordination.testing.analysis import Findings, analyse
from coordination.testing.calls import Call, ExpectedAnswer, HandoffKind, HandoffTiming, Turn, TurnKind
from coordination.testing.reading import Reader, resample
from coordination.testing.recording import SAMPLE_RATE, Channel, Recording, Samples, is_audible
from coordination.testing.report import Report
from coordination.testing.speech import CALLER, PRESETS, synthesize

GREETINGS = ("how can i help you", "thank you for calling")
STARTED = 1000.0
"""The recordings' begin on the monotonic clock."""

HELLO = "Hello, thank you for calling. How can I help you today?"
QUESTION = "I have a question about my last bill"
CONNECT = "I will connect you with billing, one moment please."
BILLING_OPENS = "You are speaking with billing now. Your last invoice was higher because of a one time fee."
SECOND_QUESTION = "When is my payment due?"
DUE = "Your next payment is due on the first of December."


@dataclass
class Tape:
    """A recording in the making: everything is placed by hand, in seconds."""

    voices: dict[str, list[tuple[float, Samples]]] = field(default_factory=dict[str, list[tuple[float, Samples]]])
    turns: list[Turn] = field(default_factory=list[Turn])

    def say(self, who: str, text: str, *, at: float) -> float:
        """Lets somebody speak; returns when that ends."""
        samples = _spoken(text, who)
        self.voices.setdefault(who, []).append((at, samples))
        return at + len(samples) / SAMPLE_RATE

    def ask(self, text: str, *, at: float, expects: str | None, handoff: HandoffKind | None = None) -> float:
        end = self.say("caller", text, at=at)
        expected = ExpectedAnswer(role=expects, handoff=handoff) if expects else None
        self.turns.append(
            Turn(kind=TurnKind.SPOKEN, started=STARTED + at, ended=STARTED + end, text=text, expected=expected)
        )
        return end

    def call(self, **details: object) -> Call:
        end = max(at + len(samples) / SAMPLE_RATE for said in self.voices.values() for at, samples in said) + 1
        opening = Turn(
            kind=TurnKind.OPENING, started=STARTED, ended=STARTED, expected=ExpectedAnswer(role="receptionist")
        )
        recording = Recording(
            caller="caller",
            started=STARTED,
            channels=tuple(
                Channel(speaker=who, role=None if who == "caller" else who.split("#")[0], samples=_line(said, end))
                for who, said in self.voices.items()
            ),
        )
        return replace(Call(recording=recording, turns=(opening, *self.turns)), **details)


def _spoken(text: str, who: str) -> Samples:
    speech = synthesize(text, voice=PRESETS.get(who.split("#")[0], CALLER))
    samples = resample(speech.samples, speech.sample_rate, SAMPLE_RATE)
    frames = [i for i in range(0, len(samples), 240) if is_audible(samples[i : i + 240])]
    return samples[frames[0] : frames[-1] + 240]


def _line(said: Sequence[tuple[float, Samples]], end: float) -> Samples:
    line = np.zeros(round(end * SAMPLE_RATE), dtype=np.int16)
    for at, samples in said:
        begin = round(at * SAMPLE_RATE)
        line[begin : begin + len(samples)] = samples[: len(line) - begin]
    return line


def good_call(tape: Tape) -> None:
    """Greeting, a question, a handoff to billing, another question to billing."""
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects="billing")
    end = tape.say("receptionist", CONNECT, at=end + 0.6)
    end = tape.say("billing", BILLING_OPENS, at=end + 0.04)
    end = tape.ask(SECOND_QUESTION, at=end + 1.3, expects="billing")
    tape.say("billing", DUE, at=end + 0.6)


@pytest.fixture
def judge() -> Callable[[Tape], Findings]:
    return lambda tape: analyse(tape.call())


def test_a_clean_call_is_ok_and_its_handoff_is_measured() -> None:
    tape = Tape()
    good_call(tape)

    report = Report.of(analyse(tape.call(), greetings=GREETINGS), scenario="clean")

    assert report.reasons == ()
    assert report.ok
    assert (report.turns, report.answered_turns, report.double_answers, report.overlap_ms) == (2, 2, 0, 0)
    assert report.second_greetings == 0
    (handoff,) = report.handoffs
    assert (handoff.from_role, handoff.to_role, handoff.kind) == ("receptionist", "billing", HandoffKind.STANDBY)
    assert handoff.voice_gap_ms == pytest.approx(40, abs=20)
    assert handoff.decision_to_ready_ms is None


@pytest.mark.parametrize("shared", [30, 60, 500])
def test_two_voices_at_once_are_an_overlap(judge: Callable[[Tape], Findings], shared: int) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects="billing")
    end = tape.say("receptionist", CONNECT, at=end + 0.6)
    tape.say("billing", BILLING_OPENS, at=end - shared / 1000)

    report = Report.of(judge(tape), scenario="overlap")

    assert not report.ok
    assert report.overlap_ms == pytest.approx(shared, abs=20)
    assert any("heard at once" in reason for reason in report.reasons)


def test_the_caller_talking_over_an_agent_is_no_overlap(judge: Callable[[Tape], Findings]) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    tape.ask(QUESTION, at=end - 0.5, expects="receptionist")
    tape.say("receptionist", DUE, at=end + 3)

    assert judge(tape).overlap == timedelta(0)


def test_two_agents_that_both_answer_are_a_double_answer(judge: Callable[[Tape], Findings]) -> None:
    tape = Tape()
    good_call(tape)
    end = max(turn.ended for turn in tape.turns) - STARTED + 5
    tape.say("receptionist", "Your payment is due in December.", at=end)

    report = Report.of(judge(tape), scenario="both")

    assert not report.ok
    assert report.double_answers == 1
    assert any("answered twice: billing and then receptionist spoke" in reason for reason in report.reasons)


@pytest.mark.parametrize("pause", [0.3, 0.9, 2.0])
def test_one_agent_that_says_its_answer_twice_is_a_double_answer(
    judge: Callable[[Tape], Findings], pause: float
) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects="receptionist")
    end = tape.say("receptionist", DUE, at=end + 0.6)
    tape.say("receptionist", DUE, at=end + pause)

    report = Report.of(judge(tape), scenario="twice")

    assert not report.ok
    assert report.double_answers == 1


def test_an_answer_that_begins_as_the_caller_goes_on_belongs_to_the_turn_before(
    judge: Callable[[Tape], Findings],
) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects="receptionist")
    end = tape.say("receptionist", "I can look that up for you.", at=end + 0.6)
    start = end + 1.6
    end = tape.ask(SECOND_QUESTION, at=start, expects="receptionist")
    tape.say("receptionist", "Your invoice", at=start + 0.2)
    tape.say("receptionist", DUE, at=end + 0.8)

    report = Report.of(judge(tape), scenario="late")

    assert [detail.double_answer is not None for detail in report.details] == [False, True, False]


def test_an_answer_of_two_sentences_is_one_answer(judge: Callable[[Tape], Findings]) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects="receptionist")
    end = tape.say("receptionist", "Let me check that for you.", at=end + 0.6)
    tape.say("receptionist", DUE, at=end + 1.0)

    assert judge(tape).faults == ()


@pytest.mark.parametrize("who", ["receptionist", "billing", "technical"])
def test_a_greeting_after_the_opening_is_a_fault(who: str) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects=who)
    tape.say(who, "Good morning, this is the service desk. How can I help you?", at=end + 0.6)

    report = Report.of(analyse(tape.call(), greetings=GREETINGS), scenario="again")

    assert not report.ok
    assert report.second_greetings == 1
    assert any(f"{who} greets as if the call were new" in reason for reason in report.reasons)


@pytest.mark.parametrize(("voices", "faults"), [(2, 0), (1, 1)])
def test_a_replacement_that_says_the_rest_is_welcome_where_it_is_expected(voices: int, faults: int) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects="receptionist")
    end = tape.say("receptionist", "Let me check", at=end + 0.6)
    tape.say("receptionist#2", "that for you.", at=end + 1.2)
    turn = replace(tape.turns[-1], expected=ExpectedAnswer(role="receptionist", voices=voices))
    tape.turns[-1] = turn

    report = Report.of(analyse(tape.call(), greetings=GREETINGS), scenario="takeover")

    assert report.double_answers == faults


def test_what_is_nearly_a_phrase_is_read_again_at_another_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(GREETINGS)
    readings = ["how can i do i you", "how can i tell you", "never asked for"]
    monkeypatch.setattr(reader, "read", lambda _: tuple(readings.pop(0).split()))

    found = reader.find(np.zeros(SAMPLE_RATE, dtype=np.int16))

    assert [phrase.text for phrase in found] == ["how can i help you"]
    assert readings == ["never asked for"]
    readings[:] = ["please hold the line", "never asked for"]
    assert reader.find(np.zeros(SAMPLE_RATE, dtype=np.int16)) == ()
    assert readings == ["never asked for"]


def test_a_turn_without_an_answer_is_a_fault(judge: Callable[[Tape], Findings]) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    tape.ask(QUESTION, at=end + 1.3, expects="receptionist")

    report = Report.of(judge(tape), scenario="mute")

    assert not report.ok
    assert (report.turns, report.answered_turns) == (1, 0)


def test_an_answer_by_the_wrong_role_is_a_fault(judge: Callable[[Tape], Findings]) -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects="billing")
    tape.say("receptionist", DUE, at=end + 0.6)

    assert any("answered by receptionist, not by billing" in fault for fault in judge(tape).faults)


def test_an_agent_that_cannot_be_interrupted_is_a_fault(judge: Callable[[Tape], Findings]) -> None:
    tape = Tape()
    tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask("Stop please, I have a question about my last bill", at=1.2, expects="receptionist")
    tape.turns[-1] = replace(tape.turns[-1], barge_in=True)
    tape.say("receptionist", DUE, at=end + 1.5)

    assert any("talks on for" in fault for fault in judge(tape).faults)


def test_an_agent_that_stops_for_the_caller_and_then_answers_is_fine(judge: Callable[[Tape], Findings]) -> None:
    tape = Tape()
    tape.voices["receptionist"] = [(0.5, _spoken(HELLO, "receptionist")[: round(1.2 * SAMPLE_RATE)])]
    end = tape.ask("Stop please, I have a question about my last bill", at=1.2, expects="receptionist")
    tape.turns[-1] = replace(tape.turns[-1], barge_in=True)
    tape.say("receptionist", DUE, at=end + 0.4)

    findings = judge(tape)

    assert findings.faults == ()
    assert findings.answers[-1].leftover == pytest.approx(timedelta(seconds=0.5), abs=timedelta(milliseconds=60))


def test_times_that_baton_tells_are_reported_beside_what_is_heard() -> None:
    tape = Tape()
    good_call(tape)
    decided = tape.turns[0].ended + 0.2
    told = HandoffTiming(
        from_role="receptionist",
        to_role="billing",
        kind=HandoffKind.DISPATCHED,
        decided=decided,
        ready=decided + 0.6,
    )

    report = Report.of(analyse(tape.call(handoffs=(told,))), scenario="told")

    (handoff,) = report.handoffs
    assert (handoff.kind, handoff.decision_to_ready_ms) == (HandoffKind.DISPATCHED, 600)
    assert handoff.silence_ms == pytest.approx(400, abs=30)


def test_a_handoff_of_another_kind_than_expected_is_a_fault() -> None:
    tape = Tape()
    end = tape.say("receptionist", HELLO, at=0.5)
    end = tape.ask(QUESTION, at=end + 1.3, expects="billing", handoff=HandoffKind.DISPATCHED)
    tape.say("billing", BILLING_OPENS, at=end + 0.6)
    in_the_room_before = {"billing": STARTED}

    findings = analyse(tape.call(joined=in_the_room_before))

    assert any("in the room already, not sent for" in fault for fault in findings.faults)


def test_a_report_survives_being_written_and_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    tape = Tape()
    good_call(tape)
    report = Report.of(analyse(tape.call()), scenario="kept", faults=("somebody slept",))
    path = tmp_path_factory.mktemp("report") / "report.json"

    report.write(path)

    assert Report.read(path) == report
    assert not report.ok
    assert '"from": "receptionist"' in path.read_text(encoding="utf-8")
