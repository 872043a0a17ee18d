"""Reads Baton's own times out of the store while a test call runs; the sound alone cannot tell them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from coordination import Coordinator
from coordination.coordinator import Room
from coordination.handoff.protocol import Handoff, HandoffState
from coordination.room.events import Event
from coordination.testing.calls import HandoffKind, HandoffTiming
from coordination.testing.runner import monotonic


class StoreWatch:
    """Follows the handoffs and events of one room. An async context manager: it holds a connection to the store."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self.sid = ""
        self._coordinator: Coordinator | None = None
        self._seen: dict[str, Handoff] = {}
        self.events: list[Event] = []
        """What happened in the room so far."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._coordinator = await Coordinator.open(self._redis_url)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._coordinator is not None:
            await self._coordinator.aclose()

    async def start(self, *, room: str, sid: str) -> None:
        assert self._coordinator is not None, "the watch is entered"
        self.sid = sid
        followed = self._coordinator.room(sid)
        self._tasks = [
            asyncio.create_task(self._follow_handoffs(followed), name="follow the handoffs of the call"),
            asyncio.create_task(self._follow_events(followed), name="follow the events of the call"),
        ]

    async def committed(self) -> Sequence[HandoffTiming]:
        return [_timing(each) for each in self._seen.values() if each.state is HandoffState.COMMITTED]

    async def _follow_events(self, room: Room) -> None:
        async for event in room.events.follow():
            self.events.append(event)

    async def _follow_handoffs(self, room: Room) -> None:
        async for handoff in room.handoffs.watch():
            self._seen[handoff.id] = handoff


def _timing(handoff: Handoff) -> HandoffTiming:
    return HandoffTiming(
        from_role=handoff.from_role,
        to_role=handoff.to_role,
        kind=HandoffKind(handoff.kind.value),
        decided=monotonic(handoff.offered_at.timestamp()),
        ready=None if handoff.ready_at is None else monotonic(handoff.ready_at.timestamp()),
    )
