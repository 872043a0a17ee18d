"""What the scenario `limits` is set in: three tenants, the quotas of the providers, and the limits that keep them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from coordination.limits.config import LimitsConfig
from coordination.testing.emulators import ChatReply, DeepgramEmulator, ElevenLabsEmulator, OpenAIEmulator, Quota

WEIGHTS: Final = {"gold": 3, "silver": 1, "bronze": 1}
CALLS_EACH: Final = 4
PERIOD: Final = timedelta(seconds=2)
"""Of the quotas. Real ones count by the minute; these show in seconds what happens."""
STRICTNESS: Final = 0.95
"""The providers refuse a little before their quota, as real ones do now and then."""

REQUESTS: Final = 12
"""What the model's provider promises in each period."""
RESERVED: Final = 8
"""What is asked of it: limit and burst, and what a busy machine lets arrive late, stay below the quota."""
STREAMS: Final = 12


def limits() -> LimitsConfig:
    """Every worker has the same."""
    return LimitsConfig.parse(
        {
            "calls": {"limit": 11},
            "providers": {
                "openai": {
                    "limits": {
                        "requests": {
                            "unit": "requests",
                            "limit": RESERVED,
                            "period": PERIOD.total_seconds(),
                            "burst": 1,
                        },
                        "tokens": {"unit": "tokens", "limit": 5000, "period": PERIOD.total_seconds()},
                    }
                },
                "deepgram": {"limits": {"streams": {"unit": "streams", "limit": STREAMS, "transfer_margin": 0}}},
                "elevenlabs": {
                    "limits": {
                        "streams": {"unit": "streams", "limit": STREAMS, "transfer_margin": 0},
                        "characters": {"unit": "characters", "limit": 5000, "period": PERIOD.total_seconds()},
                    }
                },
            },
        },
        {
            "tenants": {
                "gold": {"weight": WEIGHTS["gold"], "calls": CALLS_EACH},
                "silver": {"weight": WEIGHTS["silver"], "calls": CALLS_EACH},
                # The smallest plan: one of its four calls finds no line.
                "bronze": {"weight": WEIGHTS["bronze"], "calls": CALLS_EACH - 1},
            }
        },
    )


def providers() -> tuple[OpenAIEmulator, DeepgramEmulator, ElevenLabsEmulator]:
    """The providers of one run, with nothing used yet."""
    return (
        OpenAIEmulator(
            default=ChatReply(text="Your invoice is due on Friday."),
            quota=Quota(requests=REQUESTS, tokens=10_000, period=PERIOD, strictness=STRICTNESS),
            latency=timedelta(milliseconds=50),
        ),
        DeepgramEmulator(transcribe=lambda *_: "When is my invoice due?", quota=Quota(streams=STREAMS)),
        ElevenLabsEmulator(
            quota=Quota(characters=10_000, streams=STREAMS, period=PERIOD, strictness=STRICTNESS),
            latency=timedelta(milliseconds=50),
        ),
    )
