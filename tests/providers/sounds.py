"""What a caller sends: tones for speech, silence between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import APIConnectOptions

RATE = 16000
ONCE = APIConnectOptions(max_retry=0, timeout=5.0)
"""One attempt: what the provider answers reaches the test."""
AGAIN = APIConnectOptions(max_retry=3, retry_interval=0.01, timeout=5.0)
"""The framework's own retries, without its pauses."""


def tone(seconds: float) -> rtc.AudioFrame:
    samples = (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)
    return rtc.AudioFrame(samples.tobytes(), RATE, 1, len(samples))


def silence(seconds: float) -> rtc.AudioFrame:
    count = int(seconds * RATE)
    return rtc.AudioFrame(bytes(2 * count), RATE, 1, count)


def utterance(seconds: float = 0.8) -> list[rtc.AudioFrame]:
    """Speech, and the silence that ends it."""
    return [silence(0.1), tone(seconds), silence(0.5)]


def watch_headers(plugin: Any) -> list[Mapping[str, str]]:
    """The headers of each error answer that the plugin meets from now on.

    Taken when the plugin tells of the error: later the framework has raised it anew, and its context is lost.
    """
    met: list[Mapping[str, str]] = []

    def note(event: Any) -> None:
        answer = event.error.__cause__ or event.error.__context__
        met.append(getattr(answer, "response", answer).headers)

    plugin.on("error", note)
    return met
