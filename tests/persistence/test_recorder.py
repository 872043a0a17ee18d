"""What is said is handed over at once and saved in order, also while the outbox itself is away."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from coordination.errors import InvalidArgument
from coordination.persistence import ConversationTurn, OutboxUnavailable
from coordination.persistence import recorder as recording
from coordination.persistence.recorder import Recorder
from tests.persistence.test_backend_client import turn


class Outage:
    """A backend client whose outbox comes and goes."""

    def __init__(self) -> None:
        self.away = False
        self.saved: list[str] = []

    async def save_conversation_turn(self, conversation_id: str, turn: ConversationTurn, **_: Any) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise OutboxUnavailable("it is away")
        if turn.messages[0].text == "impossible":
            raise InvalidArgument("it is too large")
        self.saved.append(turn.messages[0].text)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    monkeypatch.setattr(recording, "AGAIN", timedelta(milliseconds=10))
    return Outage()


async def test_turns_are_saved_in_order_and_closing_waits_for_them(outage: Outage) -> None:
    recorder = Recorder(outage, "call-7")
    for number in range(50):
        recorder.record(turn(str(number)))
    assert outage.saved == []

    await recorder.close()

    assert outage.saved == [str(number) for number in range(50)]


async def test_an_outbox_that_is_away_is_waited_for_and_the_order_kept(outage: Outage) -> None:
    recorder = Recorder(outage, "call-7")
    outage.away = True
    for number in range(5):
        recorder.record(turn(str(number)))
    await asyncio.sleep(0.05)
    outage.away = False

    await recorder.close()

    assert outage.saved == ["0", "1", "2", "3", "4"]


async def test_what_cannot_be_saved_at_all_does_not_hold_up_the_rest(outage: Outage) -> None:
    recorder = Recorder(outage, "call-7")
    for text in ("first", "impossible", "last"):
        recorder.record(turn(text))

    await recorder.close()

    assert outage.saved == ["first", "last"]


async def test_closing_gives_an_outbox_up_that_does_not_come_back_and_says_so(
    outage: Outage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "CLOSED_WITHIN", timedelta(milliseconds=50))
    outage.away = True
    recorder = Recorder(outage, "call-7")
    recorder.record(turn("lost"))

    async with asyncio.timeout(5):
        await recorder.close()

    assert "are lost" in caplog.text
