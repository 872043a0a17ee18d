"""What the chaos runs' agents say can be read off a recording, and is what a good model would say."""

from __future__ import annotations

import numpy as np
from livekit.agents import llm

from coordination.testing.recording import SAMPLE_RATE, Channel, Recording
from tests.chaos.words import NUMBERS, answers_heard, name_number, name_of, reply, speech, words_heard


def recording(text: str, *, seconds: float | None = None) -> Recording:
    silence = np.zeros(SAMPLE_RATE, np.int16)
    samples = np.concatenate([silence, speech(text).samples])
    if seconds is not None:
        samples = samples[: round((1.0 + seconds) * SAMPLE_RATE)]
    return Recording(caller="caller", started=100.0, channels=(Channel(speaker="agent", samples=samples),))


def chat(*turns: tuple[str, str]) -> llm.ChatContext:
    context = llm.ChatContext()
    for role, text in turns:
        context.add_message(role=role, content=text)  # pyright: ignore[reportArgumentType]
    return context


def test_words_are_read_where_they_were_said() -> None:
    heard = list(words_heard(recording("wait yes three six"), "agent"))

    assert [each.word for each in heard] == ["wait", "yes", "three", "six"]
    assert 101.0 <= heard[0].at < heard[0].until < heard[1].at < 101.5


def test_only_a_whole_answer_is_one() -> None:
    whole = list(words_heard(recording("wait yes three six"), "agent"))
    cut = list(words_heard(recording("wait yes three six", seconds=0.75), "agent"))

    assert [name for name, _, _ in answers_heard(whole)] == ["three six"]
    assert [name for name, _, _ in answers_heard(cut)] == []


def test_every_turn_has_a_name_of_its_own_that_survives_a_split_tone() -> None:
    names = [name_number(number) for number in range(len(NUMBERS) * (len(NUMBERS) - 1))]

    assert len(set(names)) == len(names)
    assert all(name_of(f"alpha {name}") == name for name in names)
    assert name_of("alpha three three six") == "three six"
    assert name_of("alpha four five") == "three six", "each is the neighbour of what was said"
    assert name_of("alpha bravo") == ""


def test_a_turn_is_answered_until_it_was() -> None:
    asked = ("user", "more three six")

    assert reply(chat(asked), "billing").text.endswith("yes three six")
    assert reply(chat(asked, ("assistant", "wait wait")), "billing").text.endswith("yes three six")
    assert reply(chat(asked, ("assistant", "wait yes three six")), "billing").text == "hello"
    assert reply(chat(asked, ("assistant", '[said by billing] "yes three six"')), "receptionist").text == "hello"


def test_a_role_that_is_named_gets_the_call_once() -> None:
    assert reply(chat(("user", "billing please")), "receptionist").tool == "transfer"
    assert reply(chat(("user", "billing please")), "billing").tool == ""
    assert reply(chat(("user", "billing please"), ("assistant", "no")), "receptionist").tool == ""
