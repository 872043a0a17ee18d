"""What the scenario `limits` is set in: three tenants, the quotas of the providers, and the limits that keep them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final, Self

from coordination.limits.config import LimitsConfig
from coordination.testing.emulators import ChatReply, DeepgramEmulator, ElevenLabsEmulator, OpenAIEmulator, Quota

ROLE: Final = "desk"
WEIGHTS: Final = {"gold": 3, "silver": 1, "bronze": 1}
FREE: Final = "unlimited"
"""The tenant of all calls in the half without the limiter: the workers take every one of them."""
CALLS_EACH: Final = 4
PERIOD: Final = timedelta(seconds=4)
"""Of the quotas. Real ones count by the minute; these show in seconds what happens."""
STRICTNESS: Final = 0.95
"""The providers refuse a little before their quota, as real ones do now and then."""

REQUESTS: Final = 8
"""What the model's provider promises in each period. Twelve callers who ask again as soon as they were answered ask for
twice as much."""
RESERVED: Final = 4
"""What is asked of it: limit and burst, and what a busy machine lets arrive late, stay below the quota."""
STREAMS: Final = 12

ANSWER: Final = "On Friday."
"""Short, as is the question: there are many turns in a few seconds."""
BROKEN_TOPIC: Final = "limits.broken"
"""Of the data message by which an agent says that there will be no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a job of the scenario is told: where its providers are, and whether it stays within limits."""

    account: str
    """The tenant as the API key: that is how the providers can tell who used how much."""
    limited: bool
    openai: str
    deepgram: str
    elevenlabs: str

    def metadata(self) -> str:
        """Of the dispatch. Without the limiter, calls are not counted to their tenant."""
        tenant = self.account if self.limited else FREE
        return json.dumps({"baton": {"v": 1, "tenant": tenant}, "order": asdict(self)})

    @classmethod
    def read(cls, metadata: str) -> Self:
        values: dict[str, Any] = json.loads(metadata)["order"]
        return cls(**values)


def limits() -> LimitsConfig:
    """Every worker has the same."""
    return LimitsConfig.parse(
        {
            # Enough for both halves: the first one's calls may still be ending when those of the second begin.
            "calls": {"limit": 2 * len(WEIGHTS) * CALLS_EACH},
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
    """The providers of one half, with nothing used yet."""
    return (
        OpenAIEmulator(
            default=ChatReply(text=ANSWER),
            quota=Quota(requests=REQUESTS, tokens=10_000, period=PERIOD, strictness=STRICTNESS),
            latency=timedelta(milliseconds=50),
        ),
        DeepgramEmulator(transcribe=lambda *_: "When is it due?", quota=Quota(streams=STREAMS)),
        ElevenLabsEmulator(
            quota=Quota(characters=10_000, streams=STREAMS, period=PERIOD, strictness=STRICTNESS),
            latency=timedelta(milliseconds=50),
        ),
    )
