"""What all calls together may use of the real providers' accounts. Not for the agent that works without Redis."""

from __future__ import annotations

import logging
from dataclasses import replace

from livekit.agents import JobContext

from agents.providers import Providers
from config import ApplicationSettings
from coordination.errors import StoreError
from coordination.livekit import limits_of
from coordination.livekit.limited import LimitedLLM, LimitedSTT, LimitedTTS
from coordination.settings import CoordinatorSettings

logger = logging.getLogger("agents")

ONE_MOMENT = "One moment, please. "
"""Said when the wait for the language model's budget would leave the caller in silence."""


async def within_limits(ctx: JobContext, providers: Providers, settings: ApplicationSettings) -> Providers:
    """The same, the real ones within what their accounts allow, where a file of limits is configured.

    What runs on this machine needs no limit. If Redis is away as the call begins, that is logged and the call goes on:
    without limits, for they could not be counted.
    """
    keys = {name for name in ("deepgram", "openai", "eleven") if settings.key(name) is not None}
    if not keys or CoordinatorSettings().limits_file is None:
        return providers
    try:
        limits = await limits_of(ctx)
    except StoreError as fault:
        logger.error("this call uses its providers WITHOUT limits: %s", fault)
        return providers
    models = settings.models
    if "deepgram" in keys:
        budget = limits.budget("deepgram", model=models.deepgram)
        providers = replace(providers, stt=LimitedSTT(providers.stt, budget=budget))
    if "openai" in keys:
        budget = limits.budget("openai", model=models.openai)
        providers = replace(providers, llm=LimitedLLM(providers.llm, budget=budget, filler=ONE_MOMENT))
    if "eleven" in keys:
        budget = limits.budget("elevenlabs", model=models.elevenlabs)
        providers = replace(providers, tts=LimitedTTS(providers.tts, budget=budget))
    return providers
