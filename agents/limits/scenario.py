"""The scenario `limits`: three tenants share provider accounts, once with the limiter and once without, side by side.

Twelve calls at once, each in a room of its own, with the agents of three workers, ask for twice what the quotas allow.
The providers are emulated, so they can say what was really used and how often they had to refuse.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from livekit import api

from agents.limits.caller import Caller
from agents.limits.setting import CALLS_EACH, WEIGHTS, Order, limits, providers
from coordination import Coordinator
from coordination.dev import DevStack, WorkerSpec
from coordination.errors import CoordinationError
from coordination.limits.usage import TenantUse
from coordination.testing.emulators import OpenAIEmulator

WORKERS: Final = 3
SECONDS: Final = 12.0
TAKEN_WITHIN: Final = timedelta(seconds=90)
"""Against hangs: on a busy machine it takes long until twelve agents have come."""
COUNTED_WITHIN: Final = 20.0
"""Seconds until every worker has added up what its calls used; each does so every five."""
CHECKOUT: Final = Path(__file__).parents[2]


class CallsFailed(CoordinationError):
    """The calls of the scenario could not be made."""


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
class _Half:
    """What came of the calls with the limiter, or without it."""

    calls: list[Caller]
    refusals: int
    tokens: dict[str, float]
    used: dict[str, TenantUse]
    """Of the language model, as the limiter counted it."""


async def run_limits(
    *, seconds: float = SECONDS, logs: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> LimitsReport:
    """Runs both halves with the same workers, each on fresh providers, and a Valkey of its own: what this machine is
    configured with (`BATON_…`) is not for these calls, and is removed from the environment.

    Raises `CallsFailed`, and a `DevError` that says what to install when a part of the stack cannot be had.
    """
    os.chdir(CHECKOUT)  # the workers import `agents` from here
    for name in [each for each in os.environ if each.startswith("BATON_")]:
        del os.environ[name]
    each = len(WEIGHTS) * CALLS_EACH // WORKERS
    workers = [
        WorkerSpec(
            target="agents.limits.worker",
            name=f"desk-{number + 1}",
            idle_processes=each,
            drain_timeout=timedelta(seconds=1),
        )
        for number in range(WORKERS)
    ]
    async with DevStack(workers, directory=logs, progress=progress) as stack:
        progress(f"{len(WEIGHTS) * CALLS_EACH} calls, with the limiter, {seconds:g} s")
        limited = await _half(stack, seconds, limited=True)
        progress(f"The same without it, {seconds:g} s")
        free = await _half(stack, seconds, limited=False)
    return _report(limited, free)


def _report(limited: _Half, free: _Half) -> LimitsReport:
    both = {"with": limited, "without": free}
    return LimitsReport(
        tenants={tenant: _tenant(limited, tenant) for tenant in WEIGHTS},
        provider_429={name: half.refusals for name, half in both.items()},
        turns={name: sum(call.answered for call in half.calls) for name, half in both.items()},
        broken={name: sum(call.broken for call in half.calls) for name, half in both.items()},
    )


def _tenant(half: _Half, tenant: str) -> TenantReport:
    calls = [call for call in half.calls if call.order.account == tenant]
    use = half.used.get(tenant, TenantUse(tenant=tenant))
    return TenantReport(
        weight=WEIGHTS[tenant],
        calls=len(calls),
        admitted=use.admitted,
        waited=use.waited,
        refused=sum(call.refused for call in calls) + use.refused,
        share=round(half.tokens[tenant] / (sum(half.tokens.values()) or 1.0), 3),
    )


async def _half(stack: DevStack, seconds: float, *, limited: bool) -> _Half:
    livekit = stack.livekit
    async with AsyncExitStack() as held:
        client = await held.enter_async_context(api.LiveKitAPI(livekit.url, livekit.api_key, livekit.api_secret))
        mind, ears, voice = providers()
        for provider in (mind, ears, voice):
            await held.enter_async_context(provider)
        calls = [
            Caller(
                livekit,
                client,
                f"{tenant}-{number}-{'with' if limited else 'without'}",
                Order(
                    account=tenant,
                    limited=limited,
                    openai=mind.base_url,
                    deepgram=ears.base_url,
                    elevenlabs=voice.base_url,
                ),
            )
            for number in range(CALLS_EACH)
            for tenant in WEIGHTS
        ]
        async with AsyncExitStack() as on_the_line:
            await asyncio.gather(*(on_the_line.enter_async_context(call) for call in calls))
            await _talk(calls, seconds)
        used = await _used(stack, mind) if limited else {}
    return _Half(
        calls=calls,
        refusals=sum(each.judge.refused for each in (mind, ears, voice)),
        tokens={tenant: mind.judge.total("tokens", key=tenant) for tenant in WEIGHTS},
        used=used,
    )


async def _talk(calls: list[Caller], seconds: float) -> None:
    """All begin when the last one has an agent, so that nobody has the providers alone. Raises `CallsFailed`."""
    try:
        await asyncio.gather(*(call.taken(within=TAKEN_WITHIN) for call in calls))
    except TimeoutError:
        waiting = ", ".join(f"{call.name} ({call.agents or 'nobody came'})" for call in calls if not call.is_taken)
        raise CallsFailed(
            f"Not all calls of the scenario had an agent within {TAKEN_WITHIN.total_seconds():g} s: {waiting}. The "
            "workers' logs tell why: give --logs FOLDER."
        ) from None
    asking = [asyncio.create_task(call.ask(), name=f"{call.name} asks") for call in calls]
    await asyncio.wait(asking, timeout=seconds)
    for task in asking:
        task.cancel()
    for outcome in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _used(stack: DevStack, mind: OpenAIEmulator) -> dict[str, TenantUse]:
    """Who used the language model, when all that it served has been added up."""
    loop = asyncio.get_running_loop()
    until = loop.time() + COUNTED_WITHIN
    async with Coordinator.open(stack.redis_url, limits=limits()) as coordinator:
        while True:
            use = await coordinator.limits.show("openai")
            counted = sum(tenant.admitted for tenant in use.tenants)
            if counted >= mind.judge.total("requests") or loop.time() > until:
                return {tenant.tenant: tenant for tenant in use.tenants}
            await asyncio.sleep(0.2)
