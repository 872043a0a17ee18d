"""Sentences as sound."""

from __future__ import annotations

import numpy as np
from livekit import rtc

from agents.offline.recogniser import SAMPLE_RATE
from coordination.testing.speech import synthesize
from coordination.testing.voices import CALLER, Voice

_AROUND = 0.3
"""Seconds of faint noise before and after, as a session's voice activity detection leaves them."""


def spoken(text: str, *, voice: Voice = CALLER, rate: int = SAMPLE_RATE) -> rtc.AudioFrame:
    """A sentence as it is heard."""
    speech = synthesize(text, voice=voice)
    resampler = rtc.AudioResampler(speech.sample_rate, rate, quality=rtc.AudioResamplerQuality.HIGH)
    frame = rtc.AudioFrame(speech.samples.tobytes(), speech.sample_rate, 1, len(speech.samples))
    pieces = [np.frombuffer(bytes(each.data), np.int16) for each in (*resampler.push(frame), *resampler.flush())]
    return _frame(np.concatenate([_noise(_AROUND, rate), *pieces, _noise(_AROUND, rate)]), rate)


def noise(seconds: float) -> rtc.AudioFrame:
    """Nobody speaks."""
    return _frame(_noise(seconds, SAMPLE_RATE), SAMPLE_RATE)


def _noise(seconds: float, rate: int) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 8, round(rate * seconds)).astype(np.int16)


def _frame(samples: np.ndarray, rate: int) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), rate, 1, len(samples))
