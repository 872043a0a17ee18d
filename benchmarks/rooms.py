"""Handoffs in real rooms between real workers, measured at the caller: 30 to an agent that stands by, 30 dispatched."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.calls import Call, calling
from benchmarks.desk import ROLES
from benchmarks.rows import Row, Spread
from coordination.coordinator import Coordinator
from coordination.dev.stack import DevStack
from coordination.dev.workers import WorkerSpec
from coordination.handoff.protocol import Handoff, HandoffState
from tests.rooms.ears import FRAME, eventually

TIMES = 30


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
        async with calling(stack, coordinator) as call:
            await _hand_over(call, ROLES[1])
            standby = [await _hand_over(call, ROLES[number % 2]) for number in range(TIMES)]
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
    async with calling(stack, coordinator) as call:
        return await _hand_over(call, ROLES[1])


async def _hand_over(call: Call, role: str) -> Measured:
    began = time.monotonic()
    before = await call.room.handoffs.current()
    await call.type(role)
    async with asyncio.timeout(20):
        async for handoff in call.room.handoffs.watch():
            if handoff.state is HandoffState.COMMITTED and (before is None or handoff.id != before.id):
                break
        else:
            raise AssertionError("the handoffs ended")
    new, old = f"agent-{handoff.to_agent}", f"agent-{handoff.from_agent}"
    await eventually(lambda: call.ears.first_audible(new, since=began), f"{role} is heard")
    await call.quiet()
    return _judge(call, handoff, old, new, began)


def _judge(call: Call, handoff: Handoff, old: str, new: str, began: float) -> Measured:
    assert handoff.ready_at is not None
    last = call.ears.last_audible(old, since=began)
    first = call.ears.first_audible(new, since=began)
    assert last is not None
    assert first is not None
    return Measured(
        ready=(handoff.ready_at - handoff.offered_at).total_seconds() * 1000,
        # The silence between the end of the last frame and the start of the first: each arrives when it is over.
        gap=max(0.0, first - last - FRAME) * 1000,
        overlap=call.overlap(old, new, since=began),
    )
