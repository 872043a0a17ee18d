"""The turn log and the events against a real server."""

from __future__ import annotations

import asyncio

import pytest

from coordination.coordinator import Coordinator, Room
from coordination.errors import InvalidArgument, StaleFence
from coordination.room.turns import Speaker, Turn


async def say(room: Room, agent: str, fence: int, text: str, *, key: str | None = None) -> Turn:
    return await room.turns.append(
        fence=fence, speaker=Speaker.CALLER, agent=agent, role="reception", text=text, key=key
    )


async def test_turns_stand_as_they_were_said(coordinator: Coordinator):
    room = coordinator.room("call")
    first = await room.floor.request("a")
    await first.release()
    second = await room.floor.request("b")

    await say(room, "b", second.fence, "hello")
    await say(room, "a", first.fence, "my invoice")

    assert [turn.text for turn in await room.turns.read()] == ["my invoice", "hello"]


async def test_a_repeated_append_returns_the_first_turn(coordinator: Coordinator):
    room = coordinator.room("call")
    lease = await room.floor.request("a")
    first = await say(room, "a", lease.fence, "my invoice", key="k")

    assert await say(room, "a", lease.fence, "something else", key="k") == first
    assert await room.turns.read() == (first,)


async def test_who_never_held_the_floor_cannot_write_its_history(coordinator: Coordinator):
    room = coordinator.room("call")
    lease = await room.floor.request("a")

    for agent, fence in (("intruder", lease.fence), ("a", 1), ("a", lease.fence + 10**9)):
        with pytest.raises(StaleFence):
            await say(room, agent, fence, "text")
    assert await room.turns.read() == ()


async def test_how_much_was_played_is_told_later(coordinator: Coordinator):
    room = coordinator.room("call")
    lease = await room.floor.request("a")
    turn = await say(room, "a", lease.fence, "hello")

    assert await room.turns.mark_played(turn.id, 1.25)
    assert not await room.turns.mark_played("0-0", 1.0)
    assert [each.played for each in await room.turns.read()] == [1.25]


async def test_a_follower_reads_on_from_where_it_was(coordinator: Coordinator):
    room = coordinator.room("call")
    lease = await room.floor.request("a")
    first = await say(room, "a", lease.fence, "one")
    second = await say(room, "a", lease.fence, "two")

    assert await room.turns.read(since=first.id) == (second,)


async def test_the_oldest_turns_leave_first_with_all_that_belongs_to_them(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("coordination.room.turns.MAX_TURNS", 3)
    room = coordinator.room("call")
    lease = await room.floor.request("a")
    for number in range(6):
        await say(room, "a", lease.fence, str(number), key=f"k{number}")

    assert [turn.text for turn in await room.turns.read()] == ["3", "4", "5"]
    again = await say(room, "a", lease.fence, "0", key="k0")
    assert again.seq == 7


async def test_the_log_is_bounded_in_bytes(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coordination.room.turns.MAX_BYTES", 5000)
    room = coordinator.room("call")
    lease = await room.floor.request("a")
    for number in range(6):
        await say(room, "a", lease.fence, str(number) * 2000)

    assert [turn.text[0] for turn in await room.turns.read()] == ["4", "5"]


@pytest.mark.parametrize("text", ["x" * 20_000, "\ud800"])
async def test_text_that_cannot_be_logged_is_refused(coordinator: Coordinator, text: str):
    room = coordinator.room("call")
    lease = await room.floor.request("a")

    with pytest.raises(InvalidArgument):
        await say(room, "a", lease.fence, text)


async def test_events_tell_of_grants_in_order_and_once(coordinator: Coordinator, other: Coordinator):
    room = coordinator.room("call")
    seen: list[tuple[str, str]] = []

    async def follow() -> None:
        async for event in other.room("call").events.follow():
            seen.append((event.kind, event.agent))
            if event.kind == "done":
                return

    following = asyncio.create_task(follow())
    async with room.floor.hold("a"):
        await room.events.publish("invoice-paid", agent="a", reason="by card")
    await room.events.publish("done")
    await asyncio.wait_for(following, 5)

    assert seen == [("grant", "a"), ("invoice-paid", "a"), ("release", "a"), ("done", "")]
