"""A process that contends for the floor, and says on its output what it does and when.

`python contender.py URL hammer SECONDS` takes and gives back as often as it can; `... wait` asks once and holds.
Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from datetime import timedelta

from coordination.coordinator import Coordinator
from coordination.errors import LeaseLost
from coordination.settings import CoordinatorSettings


def say(what: str, fence: int = 0) -> None:
    print(f"{what} {fence} {time.monotonic():.6f}", flush=True)


async def main(url: str, mode: str, seconds: float) -> None:
    ttl = timedelta(seconds=float(os.environ.get("TTL", "1")))
    async with Coordinator.open(url, settings=CoordinatorSettings(floor_ttl=ttl)) as coordinator:
        floor = coordinator.room("call").floor
        name = f"contender-{os.getpid()}"
        if mode == "wait":
            await floor.listen()
            say("waiting")
            lease = await floor.request(name, timeout=None)
            say("in", lease.fence)
            await asyncio.sleep(60)
            return
        say("ready")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                async with floor.hold(name, timeout=None) as lease:
                    say("in", lease.fence)
                    await asyncio.sleep(random.uniform(0, 0.003))
                    say("out", lease.fence)
            except LeaseLost as lost:
                # On a machine that is late for its renewals: from its own deadline on it is out.
                say("out", lost.fence)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 0.0))
