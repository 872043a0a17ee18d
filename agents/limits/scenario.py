"""The scenario `limits`: three tenants share provider accounts, once with the limiter and once without, side by side.

Twelve calls at once in three worker processes ask for several times what the quotas allow. The providers are emulated,
so they can say what was really used and how often they had to refuse.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from agents.limits.setting import CALLS_EACH, WEIGHTS, providers
from agents.limits.worker import Counts, Order
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import CoordinationError

PROCESSES: Final = 3
SECONDS: Final = 10.0
ENDS_WITHIN: Final = 180.0
"""Seconds, against hangs: on a busy machine it takes long to start."""


class WorkerFailed(CoordinationError):
    """A worker process of the scenario did not do its part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantReport:
    """What one tenant got, with the limiter."""

    weight: float
    calls: int
    admitted: int
    """Requests to the language model that the limiter let pass."""
    waited: int
    """Of those, how many waited for their turn."""
    refused: int
    """Calls that found no free line, and requests that were not admitted in time."""
    share: float
    """Of all tokens that the language model's provider counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsReport:
    """The scenario's outcome."""

    tenants: dict[str, TenantReport]
    provider_429: dict[str, int]
    """How often the providers refused, `with` the limiter and `without`."""
    turns: dict[str, int]
    """Questions that were answered and spoken, in both runs."""
    broken: dict[str, int]
    """Questions that got no answer."""

    @property
    def ok(self) -> bool:
        """No provider had to refuse with the limiter, and some had to without."""
        return self.provider_429["with"] == 0 and self.provider_429["without"] > 0

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"ok": self.ok, **asdict(self)}, indent=2) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    counts: dict[str, Counts]
    refusals: int
    tokens: dict[str, float]


async def run_limits(*, seconds: float = SECONDS, progress: Callable[[str], None] = lambda _: None) -> LimitsReport:
    """Runs both halves in the same processes, each on fresh providers. Raises `WorkerFailed`."""
    progress(f"{len(WEIGHTS) * CALLS_EACH} calls in {PROCESSES} worker processes, which start now")
    async with AsyncExitStack() as held:
        workers = [await held.enter_async_context(_Worker.running()) for _ in range(PROCESSES)]
        await asyncio.gather(*(worker.answer() for worker in workers))
        progress(f"With the limiter, {seconds:g} s")
        with EmbeddedValkey() as valkey:
            limited = await _run(workers, valkey.url, seconds)
        progress(f"Without it, {seconds:g} s")
        free = await _run(workers, "", seconds)
    return _report(limited, free)


def _report(limited: _Run, free: _Run) -> LimitsReport:
    total = sum(limited.tokens.values()) or 1.0
    tenants = {
        tenant: TenantReport(
            weight=weight,
            calls=limited.counts[tenant].calls,
            admitted=limited.counts[tenant].admitted,
            waited=limited.counts[tenant].waited,
            refused=limited.counts[tenant].calls_refused + limited.counts[tenant].refused,
            share=round(limited.tokens[tenant] / total, 3),
        )
        for tenant, weight in WEIGHTS.items()
    }
    both = {"with": limited, "without": free}
    return LimitsReport(
        tenants=tenants,
        provider_429={name: run.refusals for name, run in both.items()},
        turns={name: sum(each.turns for each in run.counts.values()) for name, run in both.items()},
        broken={name: sum(each.broken for each in run.counts.values()) for name, run in both.items()},
    )


async def _run(workers: list[_Worker], redis_url: str, seconds: float) -> _Run:
    # Tenant by tenant, so that dealing them out in turn gives each process calls of all tenants.
    calls = [(f"{tenant}-{number}", tenant) for tenant in WEIGHTS for number in range(CALLS_EACH)]
    counts = {tenant: Counts() for tenant in WEIGHTS}
    async with AsyncExitStack() as held:
        mind, ears, voice = [await held.enter_async_context(each) for each in providers()]
        for first, worker in enumerate(workers):
            order = Order(
                calls=calls[first::PROCESSES],
                seconds=seconds,
                redis_url=redis_url,
                openai=mind.base_url,
                deepgram=ears.base_url,
                elevenlabs=voice.base_url,
            )
            worker.order(order)
        for told in await asyncio.gather(*(worker.answer() for worker in workers)):
            for tenant, values in json.loads(told).items():
                for name, value in values.items():
                    setattr(counts[tenant], name, getattr(counts[tenant], name) + value)
        refusals = sum(each.judge.refused for each in (mind, ears, voice))
        tokens = {tenant: mind.judge.total("tokens", key=tenant) for tenant in WEIGHTS}
    return _Run(counts=counts, refusals=refusals, tokens=tokens)


class _Worker:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncGenerator[_Worker]:
        """Ended when the block is left, whatever became of it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agents.limits.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def order(self, order: Order) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(asdict(order))}\n".encode())

    async def answer(self) -> str:
        """Its next line. Raises `WorkerFailed` if there is none in time."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise WorkerFailed(
                f"A worker process of the scenario did not answer within {ENDS_WITHIN:g} s, or ended. "
                "`python -m agents.limits.worker` shows whether it starts."
            )
        return line.decode()
