"""The limits, for an agent: what a job counts its use of providers against, and under which names.

Works with `CoordinatedSession` and with a plain `AgentSession`, whether the call is coordinated or not: limits are
shared between calls, coordination is within one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from livekit.agents import JobContext

from coordination.errors import InvalidSettings
from coordination.limits.config import LimitsConfig
from coordination.limits.limits import Limits
from coordination.livekit.job_call import CallOf
from coordination.livekit.limited.budget import Budget
from coordination.livekit.limited.feedback import QuotaNews
from coordination.livekit.process import shared_coordinator, until_shutdown
from coordination.settings import CoordinatorSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """The limits as one call meets them."""

    limits: Limits
    """What all processes share."""
    call: CallOf
    """Whose use is counted."""

    def budget(
        self,
        provider: str,
        *,
        model: str = "",
        caller: str = "",
        priority: int = 0,
        on_news: Callable[[QuotaNews], None] | None = None,
    ) -> Budget:
        """What a wrapper of `coordination.livekit.limited` reserves from, counted to the call's tenant, room and role.

        `provider` is a name in the configuration. The streams of an agent that came into a call which had been
        admitted before may use what is kept for that.
        """
        return Budget(
            limits=self.limits,
            provider=provider,
            tenant=self.call.tenant,
            model=model,
            room=self.call.name,
            role=self.call.role,
            caller=caller,
            priority=priority,
            transfer=self.call.admitted,
            on_news=on_news,
        )


async def limits_of(
    ctx: JobContext, *, settings: CoordinatorSettings | None = None, config: LimitsConfig | None = None
) -> CallLimits:
    """The limits for a job: `limits = await limits_of(ctx)`, then `LimitedLLM(…, budget=limits.budget("openai"))`.

    Over the one connection of the job, which a `CoordinatedSession` uses too; closed after the job has ended. The
    configuration is that of the settings (BATON_LIMITS_FILE, BATON_TENANTS_FILE), or `config`.

    Raises `InvalidSettings` if nothing says where Redis is or a file has faults, `StoreError` if Redis cannot be used
    as the job begins (later outages go by each limit's `redis_away`), `MetadataError` if it cannot be told whose call
    it is.
    """
    settings = settings or CoordinatorSettings()
    if not settings.redis_url:
        raise InvalidSettings(
            "Limits are counted in Redis, and none is configured: set BATON_REDIS_URL, e.g. redis://localhost:6379. "
            "Providers that need no shared limit need no wrapper."
        )
    call = CallOf.read(ctx.job, tenant=settings.tenant)
    async with until_shutdown(ctx) as held:
        coordinator = await held.enter_async_context(shared_coordinator(ctx, settings))
        if config is not None:
            coordinator.limits.configure(config)
    return CallLimits(limits=coordinator.limits, call=call)
