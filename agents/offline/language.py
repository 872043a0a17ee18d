"""What the recogniser expects to hear: sentences of the domain, and a language model made of them.

`phrases.yaml` describes the domain as frames with word groups in braces. They are expanded at random, but the same
way each time, so that a run repeats, and give a trigram model and a pronunciation dictionary in the formats that
pocketsphinx reads. Making them takes a second or two, so they are kept in the user's cache, under a name that changes
with everything that they are made of.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import random
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pocketsphinx import get_model_path
from pocketsphinx.lm import ArpaBoLM

PHRASES = Path(__file__).with_name("phrases.yaml")

_GROUP = re.compile(r"\{(\w+)\}")
_VARIANT = re.compile(r"\(\d+\)$")
_SAMPLES = 120
"""How often a frame with groups is expanded. More makes the model larger, not better."""
_WEIGHT_OF_PLAIN = 6
"""How often a sentence without groups counts: else "yes" would drown in the expansions."""
_DISCOUNT = 0.2
"""The mass left for word sequences that were never seen: small, since the domain is narrow."""
_SEED = 1

_PRONUNCIATIONS = {"goodbye": ("G AH D B AY", "G UH B AY"), "invoice": ("IH N V OY S",)}
"""More ways to say a word than the general dictionary has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The files that describe a domain's language to pocketsphinx."""

    model: Path
    """Trigrams, in the ARPA format."""
    dictionary: Path
    """The pronunciation of each word of the domain, and of no others."""

    def sequences(self) -> frozenset[tuple[str, ...]]:
        """All pairs and triples of words that occur in the domain, with <s> and </s> at the ends of a sentence."""
        found: set[tuple[str, ...]] = set()
        order = 0
        for line in self.model.read_text(encoding="utf-8").splitlines():
            if line.startswith("\\"):
                order = int(line[1]) if line[1].isdigit() else 0
            elif order > 1 and line:
                found.add(tuple(line.split()[1 : order + 1]))
        return frozenset(found)


def coverage(words: Sequence[str], known: frozenset[tuple[str, ...]]) -> float:
    """How much of `words` follows the domain's language, from 0 to 1; 0 for no words at all.

    The share of word triples, the sentence's ends included, that occur in the domain; triples of which only the two
    pairs occur count half.
    """
    if not words:
        return 0.0
    line = ("<s>", *words, "</s>")
    triples = list(zip(line, line[1:], line[2:], strict=False))
    weights = [1.0 if t in known else 0.5 if t[:2] in known and t[1:] in known else 0.0 for t in triples]
    return sum(weights) / len(triples)


def domain_language(cache: Path | None = None) -> Language:
    """The language of the reference application's callers, made if the cache does not have it.

    Any number of processes may ask at once: each file appears whole or not at all.
    """
    folder = (cache or _cache()) / f"offline-speech-{_digest()}"
    language = Language(model=folder / "domain.arpa", dictionary=folder / "domain.dict")
    if not (language.model.exists() and language.dictionary.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        content = yaml.safe_load(PHRASES.read_text(encoding="utf-8"))
        sentences = list(expand(content["phrases"], content["words"]))
        _write(language.dictionary, _dictionary({word for line in sentences for word in line.split()}))
        _write(language.model, _model(sentences))
    return language


def expand(phrases: Sequence[str], words: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Sentences from `phrases`, filled with the groups of `words`. The same input gives the same sentences."""
    # The choice decides how words are weighted against each other; nothing secret hangs on it.
    chance = random.Random(_SEED)

    def choose(match: re.Match[str]) -> str:
        return chance.choice(words[match.group(1)])

    for phrase in phrases:
        if not _GROUP.search(phrase):
            yield from [phrase] * _WEIGHT_OF_PLAIN
            continue
        for _ in range(_SAMPLES):
            sentence = phrase
            while _GROUP.search(sentence):
                sentence = _GROUP.sub(choose, sentence)
            yield sentence


def _model(sentences: Sequence[str]) -> list[str]:
    model = ArpaBoLM(text="\n".join(sentences), add_start=True, discount_mass=_DISCOUNT)
    model.compute()
    text = io.StringIO()
    model.write(text)
    return text.getvalue().splitlines()


def _write(path: Path, lines: Sequence[str]) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    os.replace(file.name, path)


def _dictionary(words: set[str]) -> list[str]:
    """The general dictionary's entries for `words`. Raises `ValueError` that names the words it does not have."""
    entries = Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines()
    found = [entry for entry in entries if _VARIANT.sub("", entry.split(" ", 1)[0]) in words]
    missing = words - {_VARIANT.sub("", entry.split(" ", 1)[0]) for entry in found}
    if missing:
        raise ValueError(f"{PHRASES.name} has words without a pronunciation: {', '.join(sorted(missing))}")
    for word in sorted(words & _PRONUNCIATIONS.keys()):
        found += [f"{word}({9 + i}) {phones}" for i, phones in enumerate(_PRONUNCIATIONS[word])]
    return found


def _digest() -> str:
    parts = [PHRASES.read_bytes(), Path(__file__).read_bytes(), importlib.metadata.version("pocketsphinx").encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "baton"
