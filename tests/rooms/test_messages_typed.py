"""Typed messages between participants of a real room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from livekit import rtc

from coordination.errors import InvalidArgument
from coordination.livekit.messages import Message, Messages, MessageTooLarge, Received, Sender
from coordination.livekit.messages.message import MAX_LOSSY, MAX_STREAM, Refusal
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveRoom, RoomFactory


class Shown(Message, topic="test.shown", version=2, reads=frozenset({1})):
    page: int
    note: str = ""


class OldShown(Message, topic="test.shown", version=1):
    page: int


class FutureShown(Message, topic="test.shown", version=3):
    page: int


class OtherShape(Message, topic="test.shown", version=2):
    page: str


class Inbox:
    """One participant, what it heard, and from whom."""

    def __init__(self, room: rtc.Room) -> None:
        self.room, self.messages = room, Messages(room)
        self.heard: list[tuple[str | None, int]] = []

    def listen(self, sender: Sender | list[str] = Sender.ANYBODY) -> None:
        self.messages.handle(Shown, self._heard, sender=sender)

    async def _heard(self, received: Received[Shown]) -> None:
        self.heard.append((received.identity, received.message.page))

    @property
    def pages(self) -> list[int]:
        return [page for _, page in self.heard]


@asynccontextmanager
async def joined(live: LiveRoom, *names: str) -> AsyncIterator[list[Inbox]]:
    """Participants who see each other; those whose name begins with "agent" are agents."""
    inboxes = [Inbox(await live.join(name, kind="agent" if name.startswith("agent") else "standard")) for name in names]
    await eventually(
        lambda: all(len(inbox.room.remote_participants) == len(names) - 1 for inbox in inboxes),
        "all see each other",
        within=10,
    )
    try:
        yield inboxes
    finally:
        for inbox in inboxes:
            await inbox.messages.close()


async def test_a_message_reaches_everybody_or_those_who_are_named(make_room: RoomFactory) -> None:
    async with joined(await make_room(), "agent-A", "ann", "ben") as (agent, ann, ben):
        ann.listen()
        ben.listen()

        await agent.messages.send(Shown(page=1))
        await agent.messages.send(Shown(page=2), to=["ben"])
        await agent.messages.send(Shown(page=3), reliable=False)

        await eventually(lambda: ben.pages == [1, 2, 3] and ann.pages == [1, 3], "the messages arrive")
        assert {sender for sender, _ in ann.heard} == {"agent-A"}


async def test_a_large_message_goes_as_a_stream_and_arrives_whole(make_room: RoomFactory) -> None:
    async with joined(await make_room(), "agent-A", "ann", "ben") as (agent, ann, ben):
        ann.listen()
        ben.listen()

        await agent.messages.send(Shown(page=1, note="ü" * 100_000))
        await agent.messages.send(Shown(page=2, note="x" * 20_000), to=["ann"])

        await eventually(lambda: sorted(ann.pages) == [1, 2] and ben.pages == [1], "the streams arrive")


async def test_what_is_too_large_for_its_way_is_refused_and_not_sent(make_room: RoomFactory) -> None:
    async with joined(await make_room(), "agent-A", "ann") as (agent, ann):
        ann.listen()

        with pytest.raises(MessageTooLarge, match=f"{MAX_LOSSY} is the limit. Send it reliably"):
            await agent.messages.send(Shown(page=1, note="x" * MAX_LOSSY), reliable=False)
        with pytest.raises(MessageTooLarge, match="Save it in the backend"):
            await agent.messages.send(Shown(page=2, note="x" * MAX_STREAM))
        with pytest.raises(InvalidArgument, match="list of identities"):
            await agent.messages.send(Shown(page=3), to="ann")

        await agent.messages.send(Shown(page=4))
        await eventually(lambda: ann.pages == [4], "the last one arrives")


async def test_a_sender_that_may_not_send_is_not_heard(make_room: RoomFactory) -> None:
    async with joined(await make_room(), "agent-A", "ann", "ben") as (agent, ann, ben):
        agent.listen(["ben"])
        ben.listen(Sender.AGENTS)

        await ann.messages.send(Shown(page=1))
        await ann.messages.send(Shown(page=1, note="x" * 20_000))
        await ben.messages.send(Shown(page=2))
        await agent.messages.send(Shown(page=3))

        await eventually(lambda: agent.pages == [2] and ben.pages == [3], "those who may are heard")
        await eventually(
            lambda: (
                agent.messages.statistics.refused[Refusal.SENDER] == 2
                and ben.messages.statistics.refused[Refusal.SENDER] == 2
            ),
            "those who may not are counted",
        )


async def test_versions_are_read_side_by_side_and_unknown_ones_are_refused(make_room: RoomFactory) -> None:
    async with joined(await make_room(), "agent-A", "ann") as (agent, ann):
        ann.listen()

        await agent.messages.send(OldShown(page=1))
        await agent.messages.send(FutureShown(page=2))
        await agent.messages.send(OtherShape(page="three"))
        await agent.room.local_participant.publish_data(b"\xff not json", topic="test.shown")
        await agent.messages.send(Shown(page=5))

        await eventually(lambda: ann.pages == [1, 5], "what can be read is")
        assert ann.messages.statistics.refused == {Refusal.UNREADABLE: 2, Refusal.VERSION: 1, Refusal.SENDER: 0}


async def test_a_handler_that_fails_or_hangs_holds_nobody_up(make_room: RoomFactory) -> None:
    async with joined(await make_room(), "agent-A", "ann") as (agent, ann):

        def fails(_: Received[Shown]) -> None:
            raise RuntimeError("on purpose")

        async def hangs(_: Received[Shown]) -> None:
            await asyncio.Event().wait()

        ann.messages.handle(Shown, fails)
        ann.messages.handle(Shown, hangs)
        ann.listen()

        for page in range(3):
            await agent.messages.send(Shown(page=page))

        await eventually(lambda: ann.pages == [0, 1, 2], "the others are handled")
        await eventually(lambda: ann.messages.statistics.failed == 3, "failures are counted")


async def test_a_topic_belongs_to_one_type_and_ours_to_none_of_theirs(make_room: RoomFactory) -> None:
    async with joined(await make_room(), "agent-A") as (agent,):
        agent.listen()
        with pytest.raises(InvalidArgument, match=r"'test\.shown' belongs to Shown"):
            agent.messages.handle(OldShown, lambda _: None)

    with pytest.raises(InvalidArgument, match=r"'baton\.floor' is taken"):

        class Pretender(Message, topic="baton.floor"):
            pass
