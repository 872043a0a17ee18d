"""Providers that stay within limits shared by all workers: wrappers for any `stt.STT`, `llm.LLM` and `tts.TTS`.

Each reserves before the request and settles by what was really used; a stream holds its slot until it is closed, a
barge-in included. What the provider says about its quota (429, Retry-After, what remains) corrects the budget of all.
Wrap what is limited, and put LiveKit's own adapters on top::

    budget = Budget(limits=coordinator.limits, provider="openai", tenant="acme")
    llm.FallbackAdapter([LimitedLLM(openai.LLM(), budget=budget), another])
"""

from coordination.livekit.limited.budget import Budget, ProviderBusy, Waiting
from coordination.livekit.limited.estimates import TokenEstimate
from coordination.livekit.limited.feedback import QuotaNews
from coordination.livekit.limited.llm import LimitedLLM
from coordination.livekit.limited.stt import LimitedSTT
from coordination.livekit.limited.tts import LimitedTTS

__all__ = ["Budget", "LimitedLLM", "LimitedSTT", "LimitedTTS", "ProviderBusy", "QuotaNews", "TokenEstimate", "Waiting"]
