"""Does somebody say the same thing twice? Found by the sound alone, without understanding a word.

A synthetic voice says the same sentence the same way each time. Two stretches of speech are compared by their
spectra over time (log-mel energies, normalised); the same sentence scores above 0.9 even after a trip through Opus,
different sentences of one voice clearly lower.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from coordination.testing.hearing import Span
from coordination.testing.recording import FRAME, FRAME_SAMPLES, SAMPLE_RATE, Samples

SHORTEST = timedelta(milliseconds=800)
"""What is shorter ("yes", "one moment") may be said twice."""
ALIKE = 0.87
"""Score from which two stretches are the same sentence."""

_BANDS = 24
_WINDOW = 2 * FRAME_SAMPLES
_SLIDE = timedelta(milliseconds=150)
"""How far two phrases' beginnings may be off, since both were found by their loudness."""

Features = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """The same words twice."""

    first: Span
    second: Span
    score: float


def repetitions(samples: Samples, phrases: list[Span]) -> list[Repetition]:
    """Which of the phrases of one voice are repeated by a later one. Each is reported once, with its best match."""
    long_enough = [phrase for phrase in phrases if phrase.duration >= SHORTEST]
    spectra = [spectrum(_cut(samples, phrase)) for phrase in long_enough]
    found: list[Repetition] = []
    for later in range(1, len(long_enough)):
        scores = [likeness(spectra[earlier], spectra[later]) for earlier in range(later)]
        best = int(np.argmax(scores))
        if scores[best] >= ALIKE:
            found.append(Repetition(first=long_enough[best], second=long_enough[later], score=round(scores[best], 3)))
    return found


def likeness(one: Features, other: Features) -> float:
    """How alike two spectra are, from -1 to 1, at the best alignment. The shorter one is looked for in the other."""
    short, long = (one, other) if len(one) <= len(other) else (other, one)
    slide = _SLIDE // FRAME
    padded = np.pad(long, ((slide, slide), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(short), axis=0)
    return max((_correlation(short, window.T) for window in windows), default=-1.0)


def spectrum(samples: Samples) -> Features:
    """Log-mel energies, one row for each frame of 10 ms."""
    count = len(samples) // FRAME_SAMPLES - 1
    if count < 1:
        return np.zeros((0, _BANDS))
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), _WINDOW)[::FRAME_SAMPLES][:count]
    power = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW), axis=1)) ** 2
    return np.log(power @ _mel_bands() + 1e5)


def _correlation(one: Features, other: Features) -> float:
    left, right = one - one.mean(axis=0), other - other.mean(axis=0)
    scale = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / scale if scale > 0 else 0.0


def _cut(samples: Samples, span: Span) -> Samples:
    return samples[span.start * FRAME_SAMPLES : span.end * FRAME_SAMPLES]


@lru_cache(maxsize=1)
def _mel_bands() -> Features:
    """Triangular filters from 100 Hz to 7 kHz, evenly spaced on the mel scale."""

    def mel(hertz: float) -> float:
        return 2595 * float(np.log10(1 + hertz / 700))

    edges = 700 * (10 ** (np.linspace(mel(100), mel(7000), _BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)
    bands = np.zeros((len(bins), _BANDS))
    for band in range(_BANDS):
        low, middle, high = edges[band : band + 3]
        rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
        bands[:, band] = np.clip(np.minimum(rising, falling), 0, None)
    return bands
