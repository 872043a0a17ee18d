"""Fills a history: from the store while a call is going on, from what the caller heard once it is over.

The store is asked again and again, not listened to: what it recorded must be in the history before the store is wiped,
restarted or cut off, and a subscription is one of the things that faults take away.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

from coordination.coordinator import Coordinator, Room
from coordination.errors import CoordinationError
from coordination.ids import DEFAULT_TENANT, RoomName, Tenant
from coordination.livekit.identity import agent_of
from coordination.room.events import Event
from coordination.settings import CoordinatorSettings
from coordination.store.keys import Catalogue
from coordination.store.store import Store
from coordination.testing.answers import answers
from coordination.testing.calls import Call, FloorChange
from coordination.testing.hearing import Hearing, spans
from coordination.testing.history import (
    Answer,
    CallerTurn,
    FloorEvent,
    History,
    KeyLeft,
    Listening,
    Voice,
)
from coordination.testing.recording import FRAME_SECONDS, Recording

LOOK_EVERY: Final = timedelta(milliseconds=25)
"""How long an event may be in the store alone."""


def ignore_event(_event: FloorEvent) -> None:
    """For whoever reads the history afterwards only."""


class EventRecorder:
    """Writes what the store records of one room into a history, from its first event to the end of the block.

    Survives whatever becomes of the store; `tell` is called with each event as it becomes known. What a store lost
    within `LOOK_EVERY` after it was written is known from the announcement in the room only, if there was one.
    """

    def __init__(
        self,
        history: History,
        *,
        call: str,
        room: str,
        redis_url: str,
        tenant: str = DEFAULT_TENANT,
        prefix: str = "baton",
        tell: Callable[[FloorEvent], None] = ignore_event,
    ) -> None:
        """`room` is the LiveKit room's SID, `call` what the history calls it."""
        self._history, self._call, self._tell = history, call, tell
        self._coordinator = Coordinator(settings=CoordinatorSettings(redis_url=redis_url, prefix=prefix))
        self._name, self._tenant = room, tenant
        self._last: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def room(self) -> Room:
        """The room in the recorder's own connection, for whoever wants to ask the store."""
        return self._coordinator.room(self._name, tenant=self._tenant)

    async def __aenter__(self) -> Self:
        await self._coordinator.start()
        self._task = asyncio.create_task(self._follow(), name=f"record the events of {self._call}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._coordinator.close()

    async def catch_up(self) -> None:
        """Records what the store knows by now. Call it right before the store is wiped on purpose."""
        for event in await self.room.events.read(since=self._last):
            self._take(event)

    async def _follow(self) -> None:
        while True:
            # Away, loading, refusing: it is asked again. What it recorded meanwhile is read then.
            with contextlib.suppress(CoordinationError):
                await self.catch_up()
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    def _take(self, event: Event) -> None:
        if self._last is not None and _position(event.id) <= _position(self._last):
            return
        self._last = event.id
        entry = FloorEvent(
            at=_monotonic(event.at.timestamp()),
            call=self._call,
            kind=event.kind,
            agent=event.agent,
            role=event.role,
            fence=event.fence,
            reason=event.reason,
        )
        self._history.append(entry)
        self._tell(entry)


def record_hearing(history: History, *, call: str, recording: Recording) -> None:
    """Who was audible when, by frames of 10 ms; agents are called by their ids."""
    hearing = Hearing(recording)
    started = recording.started
    history.append(Listening(call=call, at=started, until=started + recording.duration.total_seconds()))
    for channel in recording.agents:
        for span in spans(hearing.audible(channel.speaker)):
            history.append(
                Voice(
                    call=call,
                    agent=agent_of(channel.speaker) or channel.speaker,
                    at=started + span.start * FRAME_SECONDS,
                    until=started + span.end * FRAME_SECONDS,
                )
            )


def record_announcements(history: History, *, call: str, floor: Sequence[FloorChange]) -> None:
    """The grants that were announced in the room: a second witness, which no fault of the store can silence."""
    for change in floor:
        history.append(
            FloorEvent(
                at=change.at,
                call=call,
                kind="grant",
                agent=change.agent,
                role=change.role or "",
                fence=change.fence,
                source="room",
            )
        )


def record_call(history: History, *, call: str, heard: Call) -> None:
    """A whole call of a simulated caller: turns, voices, announcements, and answers as the sound alone tells them."""
    record_hearing(history, call=call, recording=heard.recording)
    record_announcements(history, call=call, floor=heard.floor)
    for number, answer in enumerate(answers(heard, Hearing(heard.recording)), start=1):
        turn = answer.turn
        if not turn.kind.by_caller or turn.expected is None:
            continue
        name = f"turn-{number}"
        history.append(CallerTurn(call=call, turn=name, at=turn.started, until=turn.ended, text=turn.text))
        if answer.answered:
            # Answered twice is one answer more, by whoever spoke last.
            for utterance in (answer.utterances[0], *(answer.utterances[-1:] if answer.doubled else ())):
                history.append(
                    Answer(
                        call=call,
                        turn=name,
                        agent=agent_of(utterance.speaker) or utterance.speaker,
                        at=heard.recording.started + utterance.span.start * FRAME_SECONDS,
                        until=heard.recording.started + utterance.span.end * FRAME_SECONDS,
                    )
                )


async def record_keys(history: History, *, redis_url: str, rooms: dict[str, str], prefix: str = "baton") -> None:
    """Every key of Baton that is in Redis now, with its time to live. `rooms`: call by room (SID), tenant default."""
    bases = {Catalogue(prefix).room(RoomName(sid), Tenant(DEFAULT_TENANT)).base: call for sid, call in rooms.items()}
    store = Store(redis_url)
    await store.open()
    try:
        for key in await _keys(store, Catalogue(prefix).root):
            left: Any = await store.command("PTTL", key)
            if left == -2:
                continue
            name = key.decode(errors="replace")
            call = next((call for base, call in bases.items() if name.startswith(base)), "")
            ttl = left / 1000 if left >= 0 else None
            history.append(KeyLeft(at=time.monotonic(), key=name, ttl=ttl, call=call))
    finally:
        await store.close()


async def _keys(store: Store, root: str) -> list[bytes]:
    found: list[bytes] = []
    cursor: Any = b"0"
    while True:
        cursor, batch = await store.command("SCAN", cursor, "MATCH", f"{root}*", "COUNT", 500)
        found += batch
        if cursor == b"0":
            return found


def _position(event_id: str) -> tuple[int, int]:
    moment, _, number = event_id.partition("-")
    return int(moment), int(number or 0)


def _monotonic(epoch: float) -> float:
    return epoch - time.time() + time.monotonic()
