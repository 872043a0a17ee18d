"""What a standby waits for, it waits for through an outage of Redis of any length."""

from __future__ import annotations

import asyncio

import pytest

from coordination.errors import StoreUnavailable
from coordination.livekit import seat as module
from coordination.livekit.seat import Seat


@pytest.fixture
def seat(monkeypatch: pytest.MonkeyPatch) -> Seat:
    monkeypatch.setattr(module, "STORE_AGAIN", 0.0)
    seat = Seat.__new__(Seat)
    seat._tasks, seat.lease = set(), None
    return seat


async def test_a_standby_watches_on_after_redis_was_away(seat: Seat) -> None:
    """It took no handoff and never stepped in again: its watch had ended when Redis was away for three seconds."""
    looks: list[str] = []

    async def watch() -> None:
        looks.append("look")
        if len(looks) < 3:
            raise StoreUnavailable("Redis is away")

    await asyncio.wait_for(seat.keep(watch, "watch the floor"), 5)

    assert len(looks) == 3


async def test_a_fault_of_another_kind_ends_the_watch(seat: Seat, caplog: pytest.LogCaptureFixture) -> None:
    async def watch() -> None:
        raise ValueError("a bug")

    await asyncio.wait_for(seat.keep(watch, "watch the floor"), 5)

    assert "could not watch the floor" in caplog.text
