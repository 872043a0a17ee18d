"""Synthetic speech without a network: text in, samples out.

The engine is espeak-ng from the `espeakng-loader` wheel, called through ctypes; nothing has to be
installed on the machine. Speech is rendered far faster than it is spoken. Two renditions of a text
sound alike but differ in their samples: the engine's noise and phase run on from call to call.
"""

import ctypes
import shutil
import subprocess
import tempfile
import threading
import wave
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from coordination.errors import CoordinationError
from coordination.testing.voices import CALLER, PRESETS, Engine, Voice

__all__ = ["CALLER", "PRESETS", "Engine", "Speech", "SpeechError", "Voice", "synthesize"]

# espeak-ng's C interface (speak_lib.h): numbers that its functions take.
_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_UTF8 = 1
_CHUNK_MS = 200
_RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7
_FLITE_TIMEOUT = timedelta(seconds=30)


class SpeechError(CoordinationError):
    """The synthesiser is missing, or does not know the voice. Not worth a retry."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Speech:
    """Rendered speech: mono, 16 bit."""

    samples: NDArray[np.int16]
    sample_rate: int

    @property
    def duration(self) -> timedelta:
        """How long it takes to say."""
        return timedelta(seconds=len(self.samples) / self.sample_rate)


def synthesize(text: str, *, voice: Voice = CALLER) -> Speech:
    """Render `text` with `voice`.

    Safe to call from any thread; calls are served one at a time, at well over a hundred times real time,
    so a sentence takes a few milliseconds. A coroutine that cannot spare them uses `asyncio.to_thread`.
    Text without anything to say gives no samples. Raises `SpeechError` for a voice that does not exist
    or an engine that is not there.
    """
    if voice.engine is Engine.FLITE:
        return _flite(text, voice)
    samples, rate = _espeak().render(text, voice)
    if not any(character.isalnum() for character in text):
        # The engine renders a breath of noise all the same.
        samples = samples[:0]
    return Speech(samples=samples, sample_rate=rate)


class _Espeak:
    """The library, loaded once per process. Its state is global, hence the lock around each call."""

    def __init__(self) -> None:
        try:
            import espeakng_loader  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as error:
            raise SpeechError(
                "No speech synthesiser: the package espeakng-loader is missing. "
                "Install it with: pip install 'livekit-baton[testing]'"
            ) from error
        loader = cast(Any, espeakng_loader)
        self._lock = threading.Lock()
        self._variants = Path(str(loader.get_data_path())) / "voices" / "!v"
        self._chunks: list[bytes] = []
        self._library = ctypes.CDLL(str(loader.get_library_path()))
        data = str(loader.get_data_path())
        self._rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, _CHUNK_MS, data.encode(), _DONT_EXIT))
        if self._rate <= 0:
            raise SpeechError(
                f"espeak-ng does not start with its data in {data}. Its limit for that path is about 160 "
                "characters: install into a shorter path, or reinstall espeakng-loader"
            )
        # The callback must outlive the library's use of it, so it is kept here.
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def render(self, text: str, voice: Voice) -> tuple[NDArray[np.int16], int]:
        with self._lock:
            self._chunks = []
            # The library takes an unknown variant without a word and speaks with the plain voice.
            known = not voice.variant or (self._variants / voice.variant).is_file()
            if not known or self._library.espeak_SetVoiceByName(voice.full_name.encode()) != 0:
                raise SpeechError(
                    f"espeak-ng has no voice {voice.full_name!r}. Use a language such as 'en-us' and a "
                    "variant such as 'f3' or 'm7'"
                )
            for parameter, value in (
                (_RATE, voice.rate),
                (_PITCH, voice.pitch),
                (_RANGE, voice.pitch_range),
                (_WORD_GAP, voice.word_gap),
            ):
                self._library.espeak_SetParameter(parameter, value, 0)
            encoded = text.encode()
            failure = self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, _UTF8, None, None)
            if failure != 0:
                raise SpeechError(f"espeak-ng could not speak {len(text)} characters (its error {failure})")
            self._library.espeak_Synchronize()
            return np.frombuffer(b"".join(self._chunks), dtype=np.int16), self._rate

    def _receive(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, count * 2))
        return 0


_CALLBACK: Callable[..., Any] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


_loading = threading.Lock()
"""A cache alone lets two threads that come at once load the library twice, and its state breaks."""


def _espeak() -> _Espeak:
    with _loading:
        return _loaded()


@lru_cache(maxsize=1)
def _loaded() -> _Espeak:
    return _Espeak()


def _flite(text: str, voice: Voice) -> Speech:
    program = shutil.which("flite")
    if program is None:
        raise SpeechError("The voice asks for flite, which is not on the PATH. Use an espeak voice, or install flite")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "speech.wav"
        stretch = f"duration_stretch={165 / voice.rate:.3f}"
        command = [program, "-voice", voice.name, "--setf", stretch, "-t", text, "-o", str(target)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_FLITE_TIMEOUT.total_seconds(), check=False
        )
        if done.returncode != 0 or not target.exists():
            raise SpeechError(f"flite does not speak with voice {voice.name!r}: {done.stderr.strip()[:200]}")
        with wave.open(str(target), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
            return Speech(samples=samples, sample_rate=file.getframerate())
