"""Limiters of others beside ours: in shuffled rounds of one run, on one server, against the same bare EVALSHA.

They run in an environment of their own, which pip makes once and Baton's cache keeps: their pins clash with ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

from redis.asyncio import Redis

from benchmarks.limits import NOW, SUBJECT, limits_config
from benchmarks.rows import Row
from coordination.coordinator import Coordinator
from coordination.dev.livekit_program import cache_directory

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "peers.txt"
SCRIPT_ONLY = "litellm==1.75.8"
"""Without what it depends on: its script is read, and nothing of it is run. Later releases have it compiled."""
PEERS = ("limits", "throttled-py", "pyrate-limiter", "litellm")
WHATS = ("1 limit", "6 limits", "cost 1,000")
ROUNDS = 9
PER_ROUND = 40
BUCKETS = 2000
LINE = 16 * 1024 * 1024
"""Bytes of an answer at most."""

Measure = Callable[[], Awaitable[list[float]]]


def python_of_peers() -> Path:
    """The interpreter of the environment, which is made if it is not there. Raises `CalledProcessError`."""
    wanted = REQUIREMENTS.read_text(encoding="utf-8") + SCRIPT_ONLY + sys.version
    folder = cache_directory() / f"bench-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
        subprocess.run([*pip, "--no-deps", SCRIPT_ONLY], check=True)
        done.touch()
    return python


class Others:
    """The process in which they run."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.versions: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, python: Path, url: str) -> AsyncGenerator[Others]:
        # Without the script's own folder on the path: a module there has the name of a peer.
        process = await asyncio.create_subprocess_exec(
            str(python),
            "-P",
            str(HERE / "limiters.py"),
            url,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=LINE,
        )
        others = cls(process)
        try:
            others.versions = await others._answer()
            yield others
        finally:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def took(self, limiter: str, what: str, calls: int) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"limiter": limiter, "what": what, "calls": calls}).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the other limiters ended; what it said stands above")
        return json.loads(line)


async def measure(url: str) -> list[Row]:
    try:
        python = await asyncio.to_thread(python_of_peers)
    except (subprocess.CalledProcessError, OSError) as failure:
        text = f"cannot be installed: {failure}"
        return [Row(name="limiters of others", target="measured beside ours", measured=text, ok=False)]
    client = Redis.from_url(url, socket_timeout=None)
    sha: str = await client.script_load("return 1")
    async with Others.running(python, url) as others, Coordinator.open(url, limits=limits_config()) as ours:

        async def bare() -> None:
            await client.evalsha(sha, 0)  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues]

        calls: dict[tuple[str, str], Measure] = {("EVALSHA", ""): _repeated(bare)}
        for what in WHATS:
            calls["baton", what] = _repeated(_ours(ours, what))
            for peer in PEERS:
                calls[peer, what] = _others(others, peer, what)
        ratios = await _rounds(calls)
        rows = [_row(peer, others.versions[peer], ratios) for peer in PEERS]
        rows += await _memory(client, ours, others)
    await client.aclose()
    return rows


def _ours(coordinator: Coordinator, what: str) -> Callable[[], Awaitable[None]]:
    provider, tokens = ("p6" if what == "6 limits" else "p1"), (1000 if what == "cost 1,000" else 1)
    if what == "cost 1,000":
        provider = "tokens"

    async def admit() -> None:
        await coordinator.limits.reserve(provider, requests=1, tokens=tokens, timeout=NOW, **SUBJECT)

    return admit


def _repeated(call: Callable[[], Awaitable[None]]) -> Measure:
    async def run() -> list[float]:
        took: list[float] = []
        for _ in range(PER_ROUND):
            began = time.perf_counter()
            await call()
            took.append((time.perf_counter() - began) * 1e6)
        return took

    return run


def _others(others: Others, peer: str, what: str) -> Measure:
    return lambda: others.took(peer, what, PER_ROUND)


async def _rounds(calls: dict[tuple[str, str], Measure]) -> dict[tuple[str, str], float]:
    """Each one's time against that of the bare script in the same round: the median over all rounds."""
    ratios: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for each in calls.values():
        await each()
    for _ in range(ROUNDS):
        took = {key: median(await calls[key]()) for key in random.sample(list(calls), len(calls))}
        for key, value in took.items():
            ratios[key].append(value / took["EVALSHA", ""])
    return {key: median(values) for key, values in ratios.items()}


def _row(peer: str, version: str, ratios: dict[tuple[str, str], float]) -> Row:
    theirs = " / ".join(f"{ratios[peer, what]:.2f}" for what in WHATS)
    ours = " / ".join(f"{ratios['baton', what]:.2f}" for what in WHATS)
    alike = peer != "litellm"
    return Row(
        name=f"{peer} {version} against bare EVALSHA: 1 limit / 6 limits / cost 1,000",
        target="ours is no slower" if alike else "",
        measured=f"{theirs} x; ours {ours} x",
        ok=all(ratios["baton", what] <= ratios[peer, what] for what in WHATS) if alike else None,
        notes="6 limits: six calls" if alike else "its script alone: it counts requests, and refuses nothing",
    )


async def _memory(client: Redis, ours: Coordinator, others: Others) -> list[Row]:
    """What the server needs for a bucket, keys and all."""

    async def grown(fill: Callable[[], Awaitable[Any]]) -> float:
        before = int((await client.info("memory"))["used_memory"])
        await fill()
        return (int((await client.info("memory"))["used_memory"]) - before) / BUCKETS

    async def fill() -> None:
        for number in range(BUCKETS):
            await ours.limits.reserve("rooms", requests=1, room=f"room-{number}")

    own = await grown(fill)
    theirs = {peer: await grown(lambda peer=peer: others.took(peer, "memory", BUCKETS)) for peer in PEERS}
    return [
        Row(
            name="memory per bucket, by the growth of the server's used memory",
            target="less than any of the others",
            measured=f"{own:.0f} bytes; " + ", ".join(f"{peer} {size:.0f}" for peer, size in theirs.items()),
            ok=own < min(theirs.values()),
            notes=f"{BUCKETS} buckets",
        )
    ]
