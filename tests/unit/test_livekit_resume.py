"""How a call goes on after its agent was lost, judged from the turn log alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coordination.ids import AgentId, Fence, RoleName, TurnId
from coordination.livekit.resume import CHARACTERS_PER_SECOND, ResumeAction, plan_resume, rest_of
from coordination.room.turns import Speaker, Turn

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
TEXT = "Your invoice is forty euros. The second part is the router, which you rented in May. Shall I send it to you?"


def turn(speaker: Speaker, text: str, *, played: float | None = None, ended: bool = False, at: float = 0.0) -> Turn:
    return Turn(
        id=TurnId("1-1"),
        fence=Fence(1),
        seq=1,
        speaker=speaker,
        agent=AgentId("a"),
        role=RoleName("billing"),
        text=text,
        played=played,
        ended=ended,
        at=BEGAN + timedelta(seconds=at),
    )


def test_a_call_in_which_no_agent_has_spoken_has_not_begun() -> None:
    assert plan_resume([turn(Speaker.CALLER, "hello?")], now=BEGAN) is None


def test_a_question_without_an_answer_is_answered() -> None:
    turns = [turn(Speaker.AGENT, "hello", played=1.0, ended=True), turn(Speaker.CALLER, "what do I owe?", at=2.0)]

    resume = plan_resume(turns, now=BEGAN + timedelta(seconds=5))

    assert resume is not None
    assert resume.action is ResumeAction.ANSWER
    assert resume.silence == timedelta(seconds=3)


def test_an_agent_that_was_heard_to_the_end_leaves_nothing_to_say() -> None:
    resume = plan_resume([turn(Speaker.AGENT, TEXT, played=7.0, ended=True)], now=BEGAN + timedelta(seconds=8))

    assert resume is not None
    assert (resume.action, resume.rest, resume.silence) == (ResumeAction.WAIT, "", timedelta(0))


def test_an_agent_that_the_caller_interrupted_is_not_finished() -> None:
    resume = plan_resume([turn(Speaker.AGENT, TEXT, played=1.0, ended=True)], now=BEGAN)

    assert resume is not None
    assert resume.action is ResumeAction.WAIT


def test_a_sentence_that_was_cut_off_is_said_from_the_clause_in_which_it_stopped() -> None:
    played = TEXT.index("router") / CHARACTERS_PER_SECOND

    resume = plan_resume([turn(Speaker.AGENT, TEXT, played=played)], now=BEGAN)

    assert resume is not None
    assert resume.action is ResumeAction.FINISH
    assert resume.rest == "The second part is the router, which you rented in May. Shall I send it to you?"


def test_a_sentence_of_which_nothing_was_heard_is_said_whole() -> None:
    resume = plan_resume([turn(Speaker.AGENT, TEXT)], now=BEGAN)

    assert resume is not None
    assert resume.rest == TEXT


@pytest.mark.parametrize(
    ("seconds", "rest"),
    [
        (0.0, "one two three"),
        (13 / CHARACTERS_PER_SECOND, ""),
        (100.0, ""),
    ],
)
def test_the_rest_of_a_text_without_punctuation_is_all_of_it_or_nothing(seconds: float, rest: str) -> None:
    assert rest_of("one two three", seconds) == rest
