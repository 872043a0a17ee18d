"""A second connection to a primary, for writes of which it must be known that replicas have them.

WAIT tells how many replicas have what *its own* connection wrote, and holds up whatever stands behind it on that
connection. So these writes have one to themselves, and one WAIT serves all that were asked for while the one before it
was under way: a replica that hangs costs each of them at most two bounds, however many there are.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from coordination.errors import CoordinationError
from coordination.store.link import Link
from coordination.store.wire import ErrorReply


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A write, and who wants to know what became of it."""

    command: tuple[str | bytes | int, ...]
    replicas: int
    within_ms: int
    done: asyncio.Future[tuple[Any, int]]


class ReplicatedLink(Link):
    """A link on which a write ends when replicas have it."""

    _asked: list[_Asked] | None = None
    _rounds: asyncio.Task[None] | None = None

    async def write(self, command: tuple[str | bytes | int, ...], replicas: int, within: float) -> tuple[Any, int]:
        """The reply, and how many replicas have the write: once there are `replicas`, or `within` seconds are over.

        Raises `StoreUnavailable` if the connection is lost, and wire's `ErrorReply`. Cancelled, the write goes out all
        the same.
        """
        done: asyncio.Future[tuple[Any, int]] = asyncio.get_running_loop().create_future()
        self._asked = self._asked or []
        self._asked.append(_Asked(command=command, replicas=replicas, within_ms=int(within * 1000), done=done))
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._serve(), name="baton-replicated")
        return await done

    async def close(self) -> None:
        await super().close()
        if self._rounds is not None:
            # The calls in flight have failed by now, and with them the round.
            await asyncio.gather(self._rounds, return_exceptions=True)

    async def _serve(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, None
            try:
                replies = [self.call(*each.command) for each in asked]
                most, longest = max(each.replicas for each in asked), max(each.within_ms for each in asked)
                counted = self.call("WAIT", most, longest)
                *outcomes, count = await asyncio.gather(*replies, counted, return_exceptions=True)
            except CoordinationError as error:
                outcomes, count = [error for _ in asked], error
            for each, reply in zip(asked, outcomes, strict=True):
                _tell(each.done, reply, count)


def _tell(done: asyncio.Future[tuple[Any, int]], reply: Any, count: Any) -> None:
    if done.done():
        return
    fault = next((each for each in (reply, count) if isinstance(each, CoordinationError | ErrorReply)), None)
    if fault is not None:
        done.set_exception(fault)
    else:
        done.set_result((reply, int(count)))
