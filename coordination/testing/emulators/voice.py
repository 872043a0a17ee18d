"""What the text-to-speech emulator says: a tone as long as the words would take, or a voice of the test kit.

Encoded as ElevenLabs names formats: `pcm_RATE`, and `mp3_RATE_KBPS`, which the plugin asks for by default.
"""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from coordination.errors import InvalidArgument
from coordination.testing.speech import synthesize
from coordination.testing.voices import Voice

SECONDS_PER_CHARACTER = 0.06
"""About a thousand characters a minute, as people speak."""
PITCH = 440.0
_LOUDNESS = 6000


def render(text: str, rate: int, voice: Voice | None) -> NDArray[np.int16]:
    """The samples of `text`; a tone without a voice. Text without anything to say gives none."""
    if not any(character.isalnum() for character in text):
        return np.zeros(0, np.int16)
    if voice is None:
        count = int(len(text.strip()) * SECONDS_PER_CHARACTER * rate)
        return (_LOUDNESS * np.sin(2 * np.pi * PITCH * np.arange(count) / rate)).astype(np.int16)
    speech = synthesize(text, voice=voice)
    count = int(len(speech.samples) * rate / speech.sample_rate)
    where = np.linspace(0, max(0, len(speech.samples) - 1), count)
    return np.interp(where, np.arange(len(speech.samples)), speech.samples).astype(np.int16)


def sample_rate(encoding: str) -> int:
    """Of a format's name. Raises `InvalidArgument` for a format that is not emulated."""
    kind, _, rest = encoding.partition("_")
    if kind not in ("pcm", "mp3") or not rest.split("_")[0].isdigit():
        raise InvalidArgument(
            f"The emulator does not speak {encoding!r}: use pcm_16000, pcm_22050, pcm_24000 or an mp3 format."
        )
    return int(rest.split("_")[0])


def encode(samples: NDArray[np.int16], encoding: str) -> bytes:
    """In the format of that name."""
    if encoding.startswith("pcm") or not len(samples):
        return samples.tobytes()
    return _mp3(samples, sample_rate(encoding), _bits(encoding))


def bytes_per_second(encoding: str) -> int:
    """How much of it a second takes."""
    return 2 * sample_rate(encoding) if encoding.startswith("pcm") else _bits(encoding) // 8


def _bits(encoding: str) -> int:
    """A second of mp3, as its format's name says."""
    return int(encoding.split("_")[2]) * 1000


def _mp3(samples: NDArray[np.int16], rate: int, bits: int) -> bytes:
    import av  # an own dependency of livekit-agents, and slow to import

    av = cast(Any, av)
    out = io.BytesIO()
    with av.open(out, mode="w", format="mp3", options={"write_xing": "0"}) as container:
        track = container.add_stream("libmp3lame", rate=rate)
        track.bit_rate, track.layout = bits, "mono"
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16p", layout="mono")
        frame.sample_rate = rate
        container.mux([*track.encode(frame), *track.encode(None)])
    return out.getvalue()
