"""A process that uses limits, and says on its output what it was admitted and when, by the server's clock.

`python limited.py URL hammer SECONDS` reserves as fast as it can; `... hold CALLS STREAMS` holds calls and streams
until it is killed. `CLOCK_OFF` shifts what the process takes for the time.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from datetime import timedelta

from coordination.coordinator import Coordinator
from coordination.errors import LimitError
from coordination.limits.config import LimitsConfig

CONFIG = LimitsConfig.parse(
    {
        "calls": {"limit": 10},
        "providers": {
            "p": {
                "limits": {
                    "tokens": {"unit": "tokens", "limit": 2000, "period": 1, "burst": 300},
                    "requests": {"unit": "requests", "limit": 400, "period": 1, "burst": 40},
                }
            },
            "s": {"limits": {"open": {"unit": "streams", "limit": 20, "transfer_margin": 0}}},
        },
    }
)


async def hammer(coordinator: Coordinator, seconds: float) -> None:
    until = time.monotonic() + seconds

    async def task() -> None:
        while time.monotonic() < until:
            cost = random.choice([1, 5, 20, 100])
            # No wait that runs out: what it had been admitted a moment before would be given back.
            timeout = timedelta(seconds=random.choice([0, 60]))
            try:
                each = await coordinator.limits.reserve("p", requests=1, tokens=cost, timeout=timeout)
            except LimitError:
                await asyncio.sleep(0.005)
            else:
                print(f"took {cost} {each.moment}", flush=True)

    await asyncio.gather(*(task() for _ in range(20)))


async def hold(coordinator: Coordinator, calls: int, streams: int) -> None:
    held = [await coordinator.limits.call(f"room-{number}", tenant="acme") for number in range(calls)]
    held += [await coordinator.limits.reserve("s", tenant="acme", streams=1) for _ in range(streams)]
    print("holding 0 0", flush=True)
    while True:
        await asyncio.sleep(0.05)
        lost = sum(each.lost.is_set() for each in held)
        if lost:
            print(f"lost {lost} 0", flush=True)


async def main(url: str, mode: str, *args: str) -> None:
    if off := float(os.environ.get("CLOCK_OFF", "0")):
        real = time.time
        time.time = lambda: real() + off
    async with Coordinator.open(url, limits=CONFIG) as coordinator:
        print("ready 0 0", flush=True)
        if mode == "hammer":
            await hammer(coordinator, float(args[0]))
        else:
            await hold(coordinator, int(args[0]), int(args[1]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
