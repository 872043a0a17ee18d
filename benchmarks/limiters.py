"""Limiters of others, run by an environment of their own: `python limiters.py URL`, one line in, one line out.

`{"limiter": NAME, "what": WHAT, "calls": N}` is answered by the microseconds that each call took. `memory` asks for N
buckets of their own. Nothing of Baton is imported here.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

HUGE = 10**9
KEYS = [f"limit-{number}" for number in range(6)]
Call = Callable[[str, int], Awaitable[Any]]
"""Takes the name of a limit, and a cost."""


async def limits(url: str) -> Call:
    from limits import RateLimitItemPerMinute
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import SlidingWindowCounterRateLimiter

    limiter = SlidingWindowCounterRateLimiter(RedisStorage(f"async+{url}", implementation="redispy"))
    item = RateLimitItemPerMinute(HUGE)
    return lambda name, cost: limiter.hit(item, name, cost=cost)


async def throttled(url: str) -> Call:
    from throttled.asyncio import RateLimiterType, Throttled, rate_limiter, store

    throttle = Throttled(
        using=RateLimiterType.GCRA.value,
        quota=rate_limiter.per_min(HUGE, burst=HUGE),
        store=store.RedisStore(server=url),
    )
    return lambda name, cost: throttle.limit(name, cost)


async def pyrate(url: str) -> Call:
    from pyrate_limiter import Duration, Rate, RateItem, RedisBucket

    client = Redis.from_url(url, socket_timeout=None)
    buckets: dict[str, Any] = {}

    async def hit(name: str, cost: int) -> None:
        if name not in buckets:
            buckets[name] = await RedisBucket.init([Rate(HUGE, Duration.MINUTE)], client, name)  # pyright: ignore
        await buckets[name].put(RateItem("call", time.time_ns() // 1_000_000, weight=cost))

    return hit


async def litellm(url: str) -> Call:
    """Its script alone: the proxy around it does more. It counts requests, whatever they cost."""
    client = Redis.from_url(url, socket_timeout=None)
    sha = await client.script_load(litellm_script())

    async def hit(name: str, cost: int) -> None:
        await client.evalsha(sha, 2, f"{{{name}}}:window", f"{{{name}}}:requests", int(time.time()), 60)

    async def hit_six(_: str, __: int) -> None:
        keys = [key for name in KEYS for key in (f"{{all}}{name}:window", f"{{all}}{name}:requests")]
        await client.evalsha(sha, len(keys), *keys, int(time.time()), 60)

    hit.six = hit_six  # type: ignore[attr-defined]
    return hit


def litellm_script() -> str:
    """Read out of the installed package, which is not imported: it would need a hundred others."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    module = Path(spec.submodule_search_locations[0]) / "proxy" / "hooks" / "parallel_request_limiter_v3.py"
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "BATCH_RATE_LIMITER_SCRIPT":
            return str(ast.literal_eval(node.value))
    raise SystemExit("litellm has no script of that name: pin a version that has.")


LIMITERS = {"limits": limits, "throttled-py": throttled, "pyrate-limiter": pyrate, "litellm": litellm}


async def run(call: Call, what: str, calls: int) -> list[float]:
    six: Call | None = getattr(call, "six", None)
    took: list[float] = []
    for number in range(calls):
        began = time.perf_counter()
        if what == "6 limits" and six is not None:
            await six("", 1)
        elif what == "6 limits":
            for name in KEYS:
                await call(name, 1)
        elif what == "memory":
            await call(f"room-{number}", 1)
        else:
            await call("limit-0", 1000 if what == "cost 1,000" else 1)
        took.append((time.perf_counter() - began) * 1e6)
    return took


async def main(url: str) -> None:
    calls = {name: await make(url) for name, make in LIMITERS.items()}
    print(json.dumps({name: importlib.metadata.version(name) for name in LIMITERS}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(await run(calls[asked["limiter"]], asked["what"], asked["calls"])), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
