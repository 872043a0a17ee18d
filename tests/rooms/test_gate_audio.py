"""The audio gate in a real room, before a real session: what a listener hears, and what the session is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.rooms.conftest import ListenerFactory
from tests.rooms.ears import Listener, eventually
from tests.rooms.rig import RoomFactory
from tests.rooms.speaking import Floor, SpeakingAgent, speaking_agent, speech

TAIL = 0.3
"""Seconds: the most that may be heard of an agent after its gate has closed."""
AGENT = "agent-A"


@pytest.fixture
async def agent(make_room: RoomFactory, listen: ListenerFactory) -> AsyncIterator[tuple[SpeakingAgent, Listener]]:
    room = await make_room()
    ears = await listen(room)
    async with speaking_agent(await room.join(AGENT, kind="agent")) as speaking:
        yield speaking, ears


async def hear_it_begin(ears: Listener) -> None:
    await eventually(lambda: ears.hears(AGENT), "the agent is heard")


async def test_an_utterance_waits_for_the_floor_and_is_then_heard_from_its_begin(
    agent: tuple[SpeakingAgent, Listener],
) -> None:
    speaking, ears = agent
    handle = speaking.session.say("one", audio=speech(1.0))
    await eventually(lambda: speaking.gate.waiting.is_set(), "the utterance waits at the gate")
    await asyncio.sleep(0.3)
    assert not ears.audible(AGENT)

    speaking.gate.open(Floor())
    await asyncio.wait_for(handle.wait_for_playout(), 5)

    await eventually(lambda: not ears.hears(AGENT, within=0.2), "the utterance has ended")
    assert ears.seconds(AGENT) == pytest.approx(1.0, abs=0.15)
    assert [event.interrupted for event in speaking.finished] == [False]
    assert speaking.finished[0].playback_position == pytest.approx(1.0, abs=0.02)


async def test_closed_in_mid_utterance_with_nothing_else_done_it_is_silent_within_the_tail(
    agent: tuple[SpeakingAgent, Listener],
) -> None:
    speaking, ears = agent
    speaking.gate.open(Floor())
    speaking.session.say("a long sentence", audio=speech(5.0))
    await hear_it_begin(ears)
    await asyncio.sleep(0.5)

    closed = time.monotonic()
    speaking.gate.close()

    await asyncio.sleep(1.0)
    last = ears.last_audible(AGENT)
    assert last is not None
    assert last - closed <= TAIL
    assert speaking.finished == []


async def test_a_lease_that_runs_out_silently_closes_the_gate_as_well(agent: tuple[SpeakingAgent, Listener]) -> None:
    speaking, ears = agent
    floor = Floor()
    speaking.gate.open(floor)
    speaking.session.say("a long sentence", audio=speech(5.0))
    await hear_it_begin(ears)

    lost = time.monotonic()
    floor.held = False

    await asyncio.sleep(0.8)
    last = ears.last_audible(AGENT)
    assert last is not None
    assert last - lost <= TAIL


async def test_a_doubt_that_passes_lets_the_utterance_go_on(agent: tuple[SpeakingAgent, Listener]) -> None:
    speaking, ears = agent
    floor = Floor()
    speaking.gate.open(floor)
    handle = speaking.session.say("a sentence", audio=speech(2.0))
    await hear_it_begin(ears)
    floor.held = False
    await eventually(lambda: not ears.hears(AGENT, within=0.2), "the agent falls silent")

    floor.held = True
    await asyncio.wait_for(handle.wait_for_playout(), 5)

    assert [event.interrupted for event in speaking.finished] == [False]
    assert ears.seconds(AGENT) == pytest.approx(2.0, abs=0.3)


async def test_an_interrupt_while_held_returns_at_once_and_the_next_utterance_plays(
    agent: tuple[SpeakingAgent, Listener],
) -> None:
    speaking, ears = agent
    held = speaking.session.say("never heard", audio=speech(1.0))
    await eventually(lambda: speaking.gate.waiting.is_set(), "the utterance waits at the gate")

    asked = time.monotonic()
    await speaking.session.interrupt()
    await asyncio.wait_for(held.wait_for_playout(), 5)
    took = time.monotonic() - asked

    speaking.gate.open(Floor())
    await asyncio.wait_for(speaking.session.say("heard", audio=speech(0.5)).wait_for_playout(), 5)
    assert took < 0.5
    await eventually(lambda: not ears.hears(AGENT, within=0.2), "the utterance has ended")
    assert ears.seconds(AGENT) == pytest.approx(0.5, abs=0.12)
    assert [event.interrupted for event in speaking.finished] == [False]


async def test_an_utterance_cut_by_the_gate_ends_as_interrupted_with_what_was_played(
    agent: tuple[SpeakingAgent, Listener],
) -> None:
    speaking, ears = agent
    speaking.gate.open(Floor())
    cut = speaking.session.say("cut off", audio=speech(5.0))
    await hear_it_begin(ears)
    await asyncio.sleep(0.4)
    speaking.gate.close()
    await asyncio.sleep(0.5)

    asked = time.monotonic()
    await speaking.session.interrupt()
    await asyncio.wait_for(cut.wait_for_playout(), 5)
    took = time.monotonic() - asked

    assert took < 0.5
    assert [event.interrupted for event in speaking.finished] == [True]
    heard = ears.seconds(AGENT)
    assert speaking.finished[0].playback_position == pytest.approx(heard, abs=0.2)
    assert speaking.gate.statistics.utterance == pytest.approx(
        timedelta(seconds=heard), abs=timedelta(milliseconds=200)
    )


async def test_nothing_of_a_cut_utterance_is_heard_when_the_floor_comes_back(
    agent: tuple[SpeakingAgent, Listener],
) -> None:
    speaking, ears = agent
    speaking.gate.open(Floor())
    speaking.session.say("cut off", audio=speech(5.0))
    await hear_it_begin(ears)
    speaking.gate.close()
    await asyncio.sleep(0.4)
    await speaking.session.interrupt()

    again = time.monotonic()
    speaking.gate.open(Floor())
    await asyncio.wait_for(speaking.session.say("the next", audio=speech(0.5)).wait_for_playout(), 5)
    await eventually(lambda: not ears.hears(AGENT, within=0.2), "the utterance has ended")

    assert ears.seconds(AGENT, since=again) == pytest.approx(0.5, abs=0.12)
    assert [event.interrupted for event in speaking.finished] == [True, False]


async def test_an_utterance_is_never_continued_under_another_lease(agent: tuple[SpeakingAgent, Listener]) -> None:
    speaking, ears = agent
    speaking.gate.open(Floor())
    stale = speaking.session.say("begun under the first lease", audio=speech(3.0))
    await hear_it_begin(ears)
    speaking.gate.close()
    await asyncio.sleep(0.4)

    again = time.monotonic()
    speaking.gate.open(Floor())
    await asyncio.wait_for(stale.wait_for_playout(), 5)
    await asyncio.sleep(0.2)

    assert [event.interrupted for event in speaking.finished] == [True]
    assert ears.seconds(AGENT, since=again + 0.05) <= 0.1
    assert speaking.gate.statistics.discarded > timedelta(seconds=2)


async def test_a_pause_of_the_session_does_not_pile_audio_up_behind_the_gate(
    agent: tuple[SpeakingAgent, Listener],
) -> None:
    speaking, ears = agent
    speaking.gate.open(Floor())
    handle = speaking.session.say("a sentence", audio=speech(2.0))
    await hear_it_begin(ears)
    speaking.gate.pause()
    await eventually(lambda: not ears.hears(AGENT, within=0.2), "the pause is heard")
    await asyncio.sleep(0.5)

    speaking.gate.resume()
    await hear_it_begin(ears)
    closed = time.monotonic()
    speaking.gate.close()
    await asyncio.sleep(0.6)
    last = ears.last_audible(AGENT)
    assert last is not None
    assert last - closed <= TAIL

    await speaking.session.interrupt()
    await asyncio.wait_for(handle.wait_for_playout(), 5)
    assert [event.interrupted for event in speaking.finished] == [True]


async def test_audio_runs_at_most_the_lead_ahead_of_what_is_played(agent: tuple[SpeakingAgent, Listener]) -> None:
    speaking, ears = agent
    opened = time.monotonic()
    speaking.gate.open(Floor())
    handle = speaking.session.say("a sentence", audio=speech(1.0))
    most = 0.0
    while not handle.done():
        statistics = speaking.gate.statistics
        if statistics.silent_at is not None:
            most = max(most, statistics.silent_at - time.monotonic())
        await asyncio.sleep(0.005)
    assert 0.05 < most <= 0.1
    assert time.monotonic() - opened >= 0.9
    assert ears.seconds(AGENT) == pytest.approx(1.0, abs=0.15)
