"""Whatever is reserved, settled, given back and waited for, by whichever process: the bound holds in every window."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import LimitError, LimitTimeout
from coordination.limits.buckets import HORIZON
from coordination.limits.config import LimitsConfig
from coordination.settings import CoordinatorSettings

PERIOD = 0.2
PREFIXES = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request: by which process, for whom, how much of the limit, how long it waits, what was used of it."""

    process: int
    tenant: str
    part: float
    wait_ms: int
    used: float
    hold_ms: int
    pause_ms: int
    priority: int


STEPS = st.lists(
    st.builds(
        Step,
        process=st.integers(0, 2),
        tenant=st.sampled_from(["vip", "one", "two"]),
        part=st.floats(0.01, 1.0),
        wait_ms=st.sampled_from([0, 0, 20, 5000]),
        used=st.sampled_from([0.0, 0.5, 1.0]),
        hold_ms=st.sampled_from([0, 0, 20, 150]),
        pause_ms=st.sampled_from([0, 0, 1, 30]),
        priority=st.integers(0, 2),
    ),
    min_size=5,
    max_size=40,
)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as valkey:
        yield valkey


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    limit=st.integers(2, 5000),
    burst=st.floats(0.01, 1.0),
    guarantee=st.booleans(),
    scale=st.sampled_from([0.1, 0.1, 1.0]),
    steps=STEPS,
)
def test_no_window_exceeds_the_bound(
    server: EmbeddedValkey, limit: int, burst: float, guarantee: bool, scale: float, steps: list[Step]
) -> None:
    """By `scale` some runs ask for many small parts, which fill a burst to the brim, and some for a few large ones."""
    size = max(1, int(limit * burst))
    part = {"guarantees": {"p": {"l": {"limit": max(limit // 2, 1), "burst": max(size // 2, 1)}}}}
    config = LimitsConfig.parse(
        {"providers": {"p": {"limits": {"l": {"unit": "tokens", "limit": limit, "period": PERIOD, "burst": size}}}}},
        {"tenants": {"vip": part} if guarantee else {}},
    )
    reserved, withdrawn = asyncio.run(_play(server.url, config, limit * scale, steps))

    largest = max((each.cost for each in reserved), default=0)
    # A difference of two intervals is off by a microsecond at most.
    rounding = len(reserved) * limit / (PERIOD * 1e6)
    moments = sorted(each.moment for each in reserved)
    for begin, end in itertools.combinations_with_replacement(moments, 2):
        # What was reserved in the window, less what was given back of it in the window.
        inside = [each for each in reserved if begin <= each.moment <= end]
        net = sum(each.cost - (each.back if each.closing <= end else 0) for each in inside)
        # What was open when it began, or when the first of it was told ahead, and was given back then.
        refunded = sum(each.back for each in reserved if each.moment < begin and each.closed >= begin - HORIZON)
        allowed = limit * (end - begin) / (PERIOD * 1e6) + max(size, largest)
        assert net <= allowed + refunded + withdrawn + rounding + 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A reservation, in microseconds by the server's clock, which is also this machine's."""

    moment: int
    cost: int
    back: int
    closing: float
    closed: float


async def _play(url: str, config: LimitsConfig, most: float, steps: list[Step]) -> tuple[list[Reserved], int]:
    """All that was reserved, and the cost of what was told just when its wait ended, and given back."""
    options = CoordinatorSettings(prefix=f"bound-{next(PREFIXES)}")
    processes = [await Coordinator.open(url, settings=options, limits=config) for _ in range(3)]
    taken: list[Reserved] = []
    withdrawn: list[int] = []

    async def ask(step: Step) -> None:
        cost = max(1, int(most * step.part))
        reserving = processes[step.process].limits.reserve(
            "p",
            tenant=step.tenant,
            tokens=cost,
            priority=step.priority,
            timeout=timedelta(milliseconds=step.wait_ms),
        )
        try:
            reservation = await reserving
        except LimitTimeout:
            withdrawn.append(cost)
            return
        except LimitError:
            return
        used = int(cost * step.used)
        reservation.settle(tokens=used)
        await asyncio.sleep(step.hold_ms / 1000)
        closing = time.time() * 1e6
        await reservation.close()
        taken.append(
            Reserved(moment=reservation.moment, cost=cost, back=cost - used, closing=closing, closed=time.time() * 1e6)
        )

    tasks: list[asyncio.Task[None]] = []
    for step in steps:
        tasks.append(asyncio.create_task(ask(step)))
        await asyncio.sleep(step.pause_ms / 1000)
    await asyncio.gather(*tasks)
    for process in processes:
        await process.close()
    return taken, sum(withdrawn)
