"""Reads what agents say, well enough to recognise phrases: with pocketsphinx, on the machine, in a tenth of real time.

The recogniser expects the phrases that it is to find and common sentences of the telephone, and nothing else; so
the words in between are often wrong, and a phrase is only ever found where it was really said or something very
close to it was.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from coordination.errors import CoordinationError, InvalidArgument
from coordination.testing.recording import SAMPLE_RATE, Samples

READER_RATE = 16_000
_BACKGROUND = Path(__file__).with_name("telephone.txt")
_MARGIN_SECONDS = 0.3
_DISCOUNT = 0.3
"""The mass that the language model leaves for word sequences that nobody foresaw."""
_FORGIVING = 4
"""Phrases of at least this many words are found with one word misread; in shorter ones each word counts."""
_WEIGHT = 3
"""How often a phrase counts in the language model, against once for each common sentence."""
_PACES = (1.0, 1.03, 0.97)
"""What is nearly a phrase is read again a little slower and a little faster: a voice that the recogniser misreads at
one pace, it reads at another."""
_VARIANT = re.compile(r"\(\d+\)")


class ReaderMissing(CoordinationError):
    """Phrases are to be recognised, but the recogniser is not installed. Not worth a retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """Words to listen for, in lower case and without punctuation."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Phrase:
        return cls(words=plain_words(text))

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def is_in(self, heard: Sequence[str]) -> bool:
        """Whether the words were heard in a row; long phrases may have one word misread, missing or too many.

        What is part of a common sentence as it stands was not misread.
        """
        return any(errors == 0 or (errors <= self._slack and not _is_common(row)) for errors, row in self._rows(heard))

    def is_near(self, heard: Sequence[str]) -> bool:
        """Whether something was heard that is worth a second reading: one more word misread than may be."""
        return any(errors <= self._slack + 1 for errors, _ in self._rows(heard))

    @property
    def _slack(self) -> int:
        return 1 if len(self.words) >= _FORGIVING else 0

    def _rows(self, heard: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
        """All rows of about the phrase's length, each with the number of words in which it differs."""
        length = len(self.words)
        for size in range(max(1, length - self._slack), length + self._slack + 1):
            for start in range(max(0, len(heard) - size + 1)):
                row = heard[start : start + size]
                yield _distance(self.words, row), row


class Reader:
    """Recognises a given set of phrases in speech.

    Raises `ReaderMissing` without pocketsphinx, and `InvalidArgument` for words that its dictionary lacks (such as
    a company's name): choose phrases without them. Not thread-safe.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self.phrases = tuple(Phrase.of(phrase) for phrase in phrases)
        if faults := [repr(text) for text, phrase in zip(phrases, self.phrases, strict=True) if not phrase.words]:
            raise InvalidArgument(f"These phrases hold no word to listen for: {', '.join(faults)}")
        self._decoder: Any = _decoder([phrase.text for phrase in self.phrases]) if self.phrases else None
        self._check_words()

    def read(self, samples: Samples) -> tuple[str, ...]:
        """The words that were heard, as far as the reader knows them; none if it has nothing to look for."""
        if self._decoder is None:
            return ()
        audio = resample(samples, SAMPLE_RATE, READER_RATE)
        margin = np.zeros(round(_MARGIN_SECONDS * READER_RATE), dtype=np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(np.concatenate([margin, audio, margin]).tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return tuple(_VARIANT.sub("", hypothesis.hypstr).split()) if hypothesis else ()

    def find(self, samples: Samples) -> tuple[Phrase, ...]:
        """Which of the phrases are said in the audio, in the order in which they were given."""
        found: set[Phrase] = set()
        for pace in _PACES:
            heard = self.read(resample(samples, SAMPLE_RATE, round(SAMPLE_RATE * pace)))
            missing = [phrase for phrase in self.phrases if phrase not in found]
            found.update(phrase for phrase in missing if phrase.is_in(heard))
            if not any(phrase.is_near(heard) for phrase in missing if phrase not in found):
                break
        return tuple(phrase for phrase in self.phrases if phrase in found)

    def _check_words(self) -> None:
        words = {word for phrase in self.phrases for word in phrase.words}
        if unknown := sorted(word for word in words if self._decoder.lookup_word(word) is None):
            raise InvalidArgument(
                f"The speech recogniser's dictionary lacks {', '.join(map(repr, unknown))}: "
                "leave such words out of the phrases it is to find"
            )


def plain_words(text: str) -> tuple[str, ...]:
    """The words of a text as a recogniser writes them: lower case, no punctuation."""
    return tuple(re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower().replace("’", "'")))


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """The same sound at another sample rate, low-pass filtered so that nothing folds over. For speech."""
    if rate == wanted or len(samples) == 0:
        return samples
    signal = samples.astype(np.float64)
    if wanted < rate:
        taps = np.arange(-32, 33)
        cutoff = 0.92 * wanted / rate
        kernel = cutoff * np.sinc(cutoff * taps) * np.hamming(len(taps))
        signal = np.convolve(signal, kernel, mode="same")
    moments = np.arange(round(len(samples) * wanted / rate)) * (rate / wanted)
    return np.clip(np.interp(moments, np.arange(len(signal)), signal), -32768, 32767).astype(np.int16)


def _decoder(phrases: list[str]) -> Any:
    try:
        import pocketsphinx  # pyright: ignore[reportMissingTypeStubs]
        from pocketsphinx.lm import ArpaBoLM  # pyright: ignore
    except ImportError as error:
        raise ReaderMissing(
            "Greetings are to be recognised, but pocketsphinx is missing. "
            "Install it with: pip install 'livekit-baton[testing]'"
        ) from error
    kit = cast(Any, pocketsphinx)
    sentences = [*_common_sentences(), *phrases * _WEIGHT]
    model = cast(Any, ArpaBoLM)(text="\n".join(sentences), add_start=True, discount_mass=_DISCOUNT)
    model.compute()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "expected.lm"
        with target.open("w", encoding="utf-8") as file:
            model.write(file)
        models = Path(str(kit.get_model_path())) / "en-us"
        return kit.Decoder(
            hmm=str(models / "en-us"),
            dict=str(models / "cmudict-en-us.dict"),
            lm=str(target),
            loglevel="FATAL",
        )


@lru_cache(maxsize=1)
def _common_sentences() -> tuple[str, ...]:
    return tuple(_BACKGROUND.read_text(encoding="utf-8").splitlines())


def _is_common(words: Sequence[str]) -> bool:
    row = f" {' '.join(words)} "
    return any(row in f" {sentence} " for sentence in _common_sentences())


def _distance(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """How many words must be changed, added or left out to make one of the other."""
    row = list(range(len(heard) + 1))
    for count, word in enumerate(wanted, start=1):
        diagonal, row[0] = row[0], count
        for column, other in enumerate(heard, start=1):
            change = diagonal + (word != other)
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, change)
    return row[-1]
