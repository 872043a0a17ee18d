"""A seat outlasts Redis, and doubts what it is granted once it was away from the room."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from livekit import rtc

from coordination.errors import StoreUnavailable
from coordination.livekit import seat as module
from coordination.livekit.entry import Entry, EntryKind
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


async def test_the_call_is_recorded_in_the_room_although_redis_is_away_in_the_moment_of_the_grant(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "announce", AsyncMock())
    membership = SimpleNamespace(set_state=AsyncMock(side_effect=StoreUnavailable("Redis is away")))
    keeper = AsyncMock()
    vars(seat).update(membership=membership, keeper=keeper, ctx=MagicMock(), agent="a", role="billing")

    await seat._tell(MagicMock(fence=7))

    keeper.write.assert_awaited_once()


@pytest.mark.parametrize("returned", [False, True])
async def test_a_grant_that_is_read_after_a_return_into_the_room_opens_nothing_by_itself(
    seat: Seat, returned: bool
) -> None:
    """The model's finding: a grant was on its way while the agent was silenced, and opened its gate after that."""
    order: list[str] = []

    def doubt(_: Any) -> None:
        order.append("doubt")

    def come_on(*_: Any) -> None:
        order.append("come on")

    parts: dict[str, Any] = {
        "room": SimpleNamespace(floor=SimpleNamespace(doubt=doubt)),
        "session": SimpleNamespace(come_on=come_on),
        **{name: MagicMock() for name in ("target", "succession", "turns", "spawn", "_tell", "_report_progress")},
        "_catch_up": _nothing,
        "_ask_roster": MagicMock(),
        "_returned": False,
    }
    vars(seat).update(parts)
    if returned:
        seat._on_reconnected()

    await seat.hold(MagicMock(reason=None, fence=7), Entry(kind=EntryKind.HANDOFF))

    assert order == (["doubt", "come on"] if returned else ["come on"])


@pytest.mark.parametrize(
    ("reason", "lost"),
    [
        (rtc.DisconnectReason.CONNECTION_TIMEOUT, True),
        (rtc.DisconnectReason.UNKNOWN_REASON, True),
        (rtc.DisconnectReason.ROOM_DELETED, False),
        (rtc.DisconnectReason.PARTICIPANT_REMOVED, False),
        (None, False),
    ],
)
async def test_a_holder_whose_connection_to_the_room_is_lost_leaves_its_call_to_the_fleet(
    seat: Seat, reason: int | None, lost: bool
) -> None:
    """It left in good order, as after a call: nobody took it for lost, and its caller was left alone."""
    parts = {
        name: MagicMock(**{f"{method}": AsyncMock()})
        for name, method in {
            "turns": "close",
            "membership": "leave",
            "resources": "aclose",
            "saving": "close",
        }.items()
    }
    quiet = {name: MagicMock() for name in ("_witness", "keeper", "target")}
    fleet = MagicMock(abandon=AsyncMock(), leave=AsyncMock())
    roster = MagicMock(remove=AsyncMock())
    lease = MagicMock(release=AsyncMock())
    vars(seat).update(parts, _fleet=fleet, room=MagicMock(roster=roster), lease=lease, **quiet)
    vars(seat).update(_ends=[], _cut_off=False, agent="agent", call=MagicMock(over=True))
    if reason is not None:
        seat._on_disconnected(reason)

    await seat._close()

    assert fleet.abandon.await_count == roster.remove.await_count == int(lost)
    assert lease.release.await_count == fleet.leave.await_count == 1
    assert parts["saving"].close.await_args.kwargs["over"] is not lost, "the record of a call that goes on stays open"


async def _nothing(_: Any) -> None:
    """There is no conversation yet."""
