"""Calls per tenant in real rooms: workers whose tenants have one line each, and each policy for a second call."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest
from livekit import api, rtc
from livekit.agents import JobRequest
from livekit.protocol import agent as agent_pb
from livekit.protocol import models

from coordination.coordinator import Coordinator
from coordination.errors import LimitExceeded
from coordination.livekit import CallAdmission
from coordination.livekit.door import CallDoor
from coordination.livekit.ending import REFUSED_TOPIC
from tests.rooms.conftest import ListenerFactory, RoomFactory
from tests.rooms.ears import Ear, Listener, eventually
from tests.rooms.lines import LINES
from tests.rooms.providers import RATE, _Segments, _word
from tests.rooms.rig import LiveKitServer, LiveRoom
from tests.rooms.test_handoff_workers import until
from tests.rooms.workers import WorkerProcess, wait_until_ready

WITHIN = 60.0
"""Seconds, against hangs: a machine that is busy takes long to start a job."""
FREED_WITHIN = 5.0
"""Seconds from the death of the last worker that held a call's slot."""


@contextmanager
def working(
    server: LiveKitServer, redis_url: str, folder: Path, when_full: str, *names: str
) -> Iterator[dict[str, WorkerProcess]]:
    """Worker processes with that policy; `receptionist-2` is a second one of its role."""
    environment = {**server.environment, "BATON_REDIS_URL": redis_url, "TEST_WHEN_FULL": when_full}
    workers = {
        name: WorkerProcess(
            role=name.partition("-")[0], name=name, environment=environment, folder=folder, module="tests.rooms.lines"
        ).start()
        for name in names
    }
    try:
        wait_until_ready(list(workers.values()))
        yield workers
    finally:
        for worker in workers.values():
            worker.stop()


@pytest.fixture
async def coordinator(redis_url: str) -> AsyncIterator[Coordinator]:
    async with Coordinator.open(redis_url, limits=LINES) as opened:
        yield opened


@pytest.fixture
def tenant() -> str:
    """A tenant of its own for each test."""
    return f"tenant-{time.monotonic_ns()}"


async def ring(room: LiveRoom, tenant: str, role: str = "receptionist", **ours: Any) -> None:
    """What a call is to the workers: a job is offered for the room."""
    metadata = json.dumps({"baton": {"v": 1, "tenant": tenant, **ours}})
    await room.api.agent_dispatch.create_dispatch(
        api.CreateAgentDispatchRequest(agent_name=role, room=room.name, metadata=metadata)
    )


async def taken(coordinator: Coordinator, room: LiveRoom, tenant: str, *roles: str) -> None:
    """Waits until agents of these roles, and no others, are in the call."""

    async def seated() -> bool:
        members = await coordinator.room(room.sid, tenant=tenant).roster.members()
        return sorted(member.role for member in members) == sorted(roles)

    await until(seated, f"{roles} take the call", within=WITHIN)


async def line_free(coordinator: Coordinator, tenant: str) -> bool:
    """Whether another call of the tenant would be admitted now."""
    try:
        lease = await coordinator.limits.call("a call that asks", tenant=tenant)
    except LimitExceeded:
        return False
    await lease.end()
    return True


async def hang_up(room: LiveRoom) -> None:
    await room.api.room.delete_room(api.DeleteRoomRequest(room=room.name))


def announcements(ears: Listener) -> list[Ear]:
    return [ear for ear in ears.ears if ear.track_name == "announcements"]


def announced(ears: Listener) -> list[str]:
    """The words that the announcing voice has said to the caller so far."""
    words: list[str] = []
    for ear in announcements(ears):
        heard = b"".join(bytes(frame.samples) for frame in list(ear.frames))
        words += _words(np.frombuffer(heard, np.int16)[::3])
    return words


def greeted(ears: Listener) -> bool:
    """Whether an agent of the application was heard."""
    return any(frame.audible for ear in ears.ears if ear not in announcements(ears) for frame in list(ear.frames))


def _words(samples: np.ndarray) -> list[str]:
    segments, tone, words = _Segments(), [], []
    frame = rtc.AudioFrame(samples.tobytes(), RATE, 1, len(samples))
    for piece in [*segments.pieces(frame), np.zeros(160, np.int16)]:
        if np.abs(piece).mean() > 500:
            tone.append(piece)
        elif tone:
            words += [_word(np.concatenate(tone))] if len(tone) >= 8 else []
            tone = []
    return words


def ended(room: rtc.Room) -> Callable[[], bool]:
    """Whether the participant has been told that the call is over, from now on."""
    reasons: list[Any] = []
    room.on("disconnected", reasons.append)
    return lambda: rtc.DisconnectReason.ROOM_DELETED in reasons


async def test_a_call_is_counted_once_and_a_second_one_rejected_for_as_long_as_a_worker_has_the_first(
    livekit_server: LiveKitServer,
    redis_url: str,
    tmp_path: Path,
    coordinator: Coordinator,
    make_room: RoomFactory,
    tenant: str,
) -> None:
    names = ("receptionist-1", "receptionist-2", "billing")
    with working(livekit_server, redis_url, tmp_path, "reject", *names) as workers:
        first, second, other = [await make_room() for _ in range(3)]
        callers = [await room.join("caller") for room in (first, second, other)]
        over, told = ended(callers[1]), list[str]()
        callers[1].on("data_received", lambda packet: told.append(packet.topic))

        await ring(first, tenant)
        await taken(coordinator, first, tenant, "receptionist")
        # A worker that has not seen the first call knows of it all the same.
        await ring(second, tenant, "billing")
        await eventually(over, "the second call is ended", within=WITHIN)
        assert told == [REFUSED_TOPIC]
        assert await coordinator.room(second.sid, tenant=tenant).roster.members() == ()
        await ring(other, f"{tenant}-other", "billing")
        await taken(coordinator, other, f"{tenant}-other", "billing")

        # Another agent of a call that was admitted is not another call.
        await ring(first, tenant, "billing", standby=True)
        await taken(coordinator, first, tenant, "receptionist", "billing")

        # Nor is its replacement, and the slot is kept for it.
        holder = next(worker for worker in workers.values() if worker.serves(first.name))
        successor = next(worker for name, worker in workers.items() if "receptionist" in name and worker is not holder)
        holder.kill()
        deadline = time.monotonic() + WITHIN
        while not successor.serves(first.name):
            assert time.monotonic() < deadline, "the call is taken over"
            assert not await line_free(coordinator, tenant), "the slot was free while the call was taken over"
            await asyncio.sleep(0.05)
        await taken(coordinator, first, tenant, "receptionist", "billing")
        assert not await line_free(coordinator, tenant)

        # With nobody left to take over it is free.
        for worker in workers.values():
            worker.kill()
        await until(lambda: line_free(coordinator, tenant), "the line is free again", within=FREED_WITHIN)


@pytest.mark.parametrize("ours", [{"handoff": "h1"}, {"takeover": "job-1"}, {"standby": True}])
async def test_an_agent_for_an_admitted_call_is_taken_though_others_have_all_lines_by_now(
    redis_url: str, coordinator: Coordinator, tenant: str, monkeypatch: pytest.MonkeyPatch, ours: dict[str, Any]
) -> None:
    """Its own slot ran out while nobody served it, and another call has it."""
    monkeypatch.setenv("BATON_REDIS_URL", redis_url)
    door, accepted = CallDoor(CallAdmission(limits=LINES)), list[str]()
    other = await coordinator.limits.call("another call", tenant=tenant)

    async def accept(request: JobRequest) -> None:
        accepted.append(request.room.sid)

    async def refuse(_: bool) -> None:
        raise AssertionError("an admitted call was refused")

    metadata = json.dumps({"baton": {"v": 1, "tenant": tenant, **ours}})
    job = agent_pb.Job(room=models.Room(sid="RM_1", name="call"), metadata=metadata, agent_name="billing")
    async with door._held:
        await door.answer(JobRequest(job=job, on_reject=refuse, on_accept=AsyncMock()), accept)
        # Counted all the same: with the other one it is above its tenant's lines until one of them ends.
        await other.end()
        assert not await line_free(coordinator, tenant)
        await door._calls["RM_1"].lease.end()

    assert accepted == ["RM_1"]


async def test_a_call_without_a_line_hears_that_all_are_busy_and_one_of_a_blocked_tenant_nothing(
    livekit_server: LiveKitServer,
    redis_url: str,
    tmp_path: Path,
    coordinator: Coordinator,
    make_room: RoomFactory,
    listen: ListenerFactory,
    tenant: str,
) -> None:
    with working(livekit_server, redis_url, tmp_path, "announce", "receptionist"):
        first, second, third = [await make_room() for _ in range(3)]
        await first.join("caller")
        ears, unheard = await listen(second), await listen(third)
        over, over_too = ended(ears.room), ended(unheard.room)

        await ring(first, tenant)
        await taken(coordinator, first, tenant, "receptionist")
        await ring(second, tenant)
        await eventually(over, "the second call is ended", within=WITHIN)
        # To wait, or to call again later, would not help.
        await coordinator.limits.block(f"{tenant}-blocked", reason="unpaid")
        await ring(third, f"{tenant}-blocked")
        await eventually(over_too, "the call of the blocked tenant is ended", within=WITHIN)
        assert not unheard.ears
        await coordinator.limits.unblock(f"{tenant}-blocked")

    assert announced(ears) == ["goodbye"]
    assert not greeted(ears), "nobody else has spoken to the caller"


async def test_calls_wait_for_a_line_and_are_told_their_place(
    livekit_server: LiveKitServer,
    redis_url: str,
    tmp_path: Path,
    coordinator: Coordinator,
    make_room: RoomFactory,
    listen: ListenerFactory,
    tenant: str,
) -> None:
    with working(livekit_server, redis_url, tmp_path, "queue", "receptionist"):
        first, second, third = [await make_room() for _ in range(3)]
        await first.join("caller")
        ears = [await listen(room) for room in (second, third)]

        async def hears(caller: int, *words: str) -> None:
            await eventually(lambda: announced(ears[caller]) == list(words), f"hears {words}", within=WITHIN)

        await ring(first, tenant)
        await taken(coordinator, first, tenant, "receptionist")
        await ring(second, tenant)
        await hears(0, "wait", "one")
        await ring(third, tenant)
        await hears(1, "wait", "two")

        await hang_up(first)
        await taken(coordinator, second, tenant, "receptionist")
        await hears(1, "wait", "two", "wait", "one")
        await eventually(lambda: greeted(ears[0]), "the agent speaks to the second caller", within=WITHIN)

        assert await coordinator.room(third.sid, tenant=tenant).roster.members() == ()
        assert not greeted(ears[1])
        assert announced(ears[0]) == ["wait", "one"]
