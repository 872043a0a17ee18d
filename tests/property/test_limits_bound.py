"""Whatever is reserved, settled, given back and waited for, by whichever process: the bound holds in every window."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import LimitError
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
    pause_ms: int
    priority: int


STEPS = st.lists(
    st.builds(
        Step,
        process=st.integers(0, 2),
        tenant=st.sampled_from(["vip", "one", "two"]),
        part=st.floats(0.01, 1.0),
        wait_ms=st.sampled_from([0, 20, 100, 300]),
        used=st.sampled_from([0.0, 0.5, 1.0]),
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
@given(limit=st.integers(2, 5000), burst=st.floats(0.01, 1.0), guarantee=st.booleans(), steps=STEPS)
def test_no_window_exceeds_the_bound(
    server: EmbeddedValkey, limit: int, burst: float, guarantee: bool, steps: list[Step]
) -> None:
    size = max(1, int(limit * burst))
    part = {"guarantees": {"p": {"l": {"limit": max(limit // 2, 1), "burst": max(size // 2, 1)}}}}
    config = LimitsConfig.parse(
        {"providers": {"p": {"limits": {"l": {"unit": "tokens", "limit": limit, "period": PERIOD, "burst": size}}}}},
        {"tenants": {"vip": part} if guarantee else {}},
    )
    taken = asyncio.run(_play(server.url, config, limit, steps))

    largest = max((cost for _, cost, _ in taken), default=0)
    for begin, end in itertools.combinations_with_replacement([moment for moment, _, _ in taken], 2):
        reserved = sum(cost for moment, cost, _ in taken if begin <= moment <= end)
        # What was given back in the window, of whatever was reserved, may have been reserved again.
        refunded = sum(back for _, _, back in taken)
        allowed = limit * (end - begin) / (PERIOD * 1e6) + max(size, largest) + refunded
        assert reserved <= allowed + 1e-3 * limit + 1


async def _play(url: str, config: LimitsConfig, limit: int, steps: list[Step]) -> list[tuple[int, int, int]]:
    """Moment, cost and refund of everything that was admitted, in the order of the moments."""
    options = CoordinatorSettings(prefix=f"bound-{next(PREFIXES)}")
    processes = [await Coordinator.open(url, settings=options, limits=config) for _ in range(3)]
    taken: list[tuple[int, int, int]] = []

    async def ask(step: Step) -> None:
        cost = max(1, int(limit * step.part))
        reserving = processes[step.process].limits.reserve(
            "p",
            tenant=step.tenant,
            tokens=cost,
            priority=step.priority,
            timeout=timedelta(milliseconds=step.wait_ms),
        )
        try:
            async with reserving as reservation:
                used = int(cost * step.used)
                reservation.settle(tokens=used)
                taken.append((reservation.moment, cost, cost - used))
        except LimitError:
            return

    tasks: list[asyncio.Task[None]] = []
    for step in steps:
        tasks.append(asyncio.create_task(ask(step)))
        await asyncio.sleep(step.pause_ms / 1000)
    await asyncio.gather(*tasks)
    for process in processes:
        await process.close()
    return sorted(taken)
