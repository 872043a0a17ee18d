"""Reads Baton's own times of handoffs out of the store while a test call runs; the sound alone cannot tell them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from coordination import Coordinator
from coordination.handoff.protocol import Handoff, HandoffState
from coordination.testing.calls import HandoffKind, HandoffTiming
from coordination.testing.runner import monotonic


class StoreWatch:
    """Follows the handoffs of one room. An async context manager: it holds a connection to the store."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self.sid = ""
        self._coordinator: Coordinator | None = None
        self._seen: dict[str, Handoff] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._coordinator = await Coordinator.open(self._redis_url)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._coordinator is not None:
            await self._coordinator.aclose()

    async def start(self, *, room: str, sid: str) -> None:
        self.sid = sid
        self._task = asyncio.create_task(self._follow(sid), name="follow the handoffs of the call")

    async def committed(self) -> Sequence[HandoffTiming]:
        return [_timing(each) for each in self._seen.values() if each.state is HandoffState.COMMITTED]

    async def _follow(self, sid: str) -> None:
        assert self._coordinator is not None, "the watch is entered"
        room = self._coordinator.room(sid)
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
