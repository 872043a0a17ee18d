"""Handoffs in real rooms between real workers, measured at the caller: 30 to an agent that stands by, 30 dispatched."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from livekit import api, rtc

from benchmarks.desk import ROLES
from benchmarks.rows import Row, Spread
from coordination.coordinator import Coordinator, Room
from coordination.dev.stack import DevStack
from coordination.dev.workers import WorkerSpec
from coordination.handoff.protocol import Handoff, HandoffState
from tests.rooms.ears import Listener, eventually, listening

TIMES = 30
QUIET = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One handoff, in milliseconds."""

    ready: float
    gap: float
    overlap: float


async def measure(url: str) -> list[Row]:
    workers = [WorkerSpec(target="benchmarks.desk", name=role, environment={"BENCH_ROLE": role}) for role in ROLES]
    async with DevStack(workers, redis_url=url) as stack, Coordinator.open(url) as coordinator:
        dispatched = [await _one_dispatched(stack, coordinator) for _ in range(TIMES)]
        async with _call(stack, coordinator) as call:
            await call.hand_over(ROLES[1])
            standby = [await call.hand_over(ROLES[number % 2]) for number in range(TIMES)]
    gap, ready = Spread.of([each.gap for each in standby]), Spread.of([each.ready for each in dispatched])
    other = Spread.of([each.gap for each in dispatched])
    overlap = sum(each.overlap for each in [*standby, *dispatched])
    return [
        Row(
            name=f"{TIMES} handoffs to a standby: voice gap at the caller",
            target="p50 <= 40 ms, p99 <= 100 ms",
            measured=f"p95 {gap.p95:.0f}, {gap.text('ms', digits=0)}",
            ok=gap.p50 <= 40 and gap.p99 <= 100,
        ),
        Row(
            name=f"{TIMES} handoffs to a dispatched agent: decision to ready",
            target="p50 <= 700 ms",
            measured=f"p95 {ready.p95:.0f}, {ready.text('ms', digits=0)}",
            ok=ready.p50 <= 700,
            notes=f"voice gap {other.text('ms', digits=0)}: a track of its own that nobody has heard before",
        ),
        Row(
            name=f"{2 * TIMES} handoffs: two voices at once",
            target="0 ms",
            measured=f"{overlap:.0f} ms",
            ok=overlap == 0,
        ),
    ]


async def _one_dispatched(stack: DevStack, coordinator: Coordinator) -> Measured:
    async with _call(stack, coordinator) as call:
        return await call.hand_over(ROLES[1])


@asynccontextmanager
async def _call(stack: DevStack, coordinator: Coordinator) -> AsyncIterator[_Call]:
    """A call that the first agent has answered."""
    key = stack.livekit
    name = f"bench-{secrets.token_hex(4)}"
    async with api.LiveKitAPI(key.url, key.api_key, key.api_secret) as client:
        created = await client.room.create_room(api.CreateRoomRequest(name=name))
        grants = api.VideoGrants(room_join=True, room=name)
        token = api.AccessToken(key.api_key, key.api_secret).with_identity("caller").with_grants(grants).to_jwt()
        caller = rtc.Room()
        await caller.connect(key.url, token)
        async with listening(caller) as ears:
            await client.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name=ROLES[0], room=name))
            call = _Call(caller, ears, coordinator.room(created.sid))
            await eventually(lambda: any(ears.hears(ear.identity) for ear in ears.ears), "the call is answered")
            await call.quiet()
            yield call
        await call.room.close()
        await caller.disconnect()
        await client.room.delete_room(api.DeleteRoomRequest(room=name))


class _Call:
    """One caller, and what it hears."""

    def __init__(self, caller: rtc.Room, ears: Listener, room: Room) -> None:
        self.caller, self.ears, self.room = caller, ears, room

    @property
    def identities(self) -> set[str]:
        return {ear.identity for ear in self.ears.ears}

    async def quiet(self) -> None:
        await eventually(
            lambda: not any(self.ears.hears(each, within=QUIET) for each in self.identities), "nobody speaks"
        )

    async def hand_over(self, role: str) -> Measured:
        began = time.monotonic()
        before = await self.room.handoffs.current()
        await self.caller.local_participant.send_text(role, topic="lk.chat")
        async with asyncio.timeout(20):
            async for handoff in self.room.handoffs.watch():
                if handoff.state is HandoffState.COMMITTED and (before is None or handoff.id != before.id):
                    break
            else:
                raise AssertionError("the handoffs ended")
        new, old = f"agent-{handoff.to_agent}", f"agent-{handoff.from_agent}"
        await eventually(lambda: self.ears.first_audible(new, since=began), f"{role} is heard")
        await self.quiet()
        return self._judge(handoff, old, new, began)

    def _judge(self, handoff: Handoff, old: str, new: str, began: float) -> Measured:
        assert handoff.ready_at is not None
        last = self.ears.last_audible(old, since=began)
        first = self.ears.first_audible(new, since=began)
        assert last is not None
        assert first is not None
        slots = [{int(frame.at * 100) for frame in self.ears.audible(each, since=began)} for each in (old, new)]
        return Measured(
            ready=(handoff.ready_at - handoff.offered_at).total_seconds() * 1000,
            gap=max(0.0, first - last) * 1000,
            overlap=len(slots[0] & slots[1]) * 10.0,
        )
