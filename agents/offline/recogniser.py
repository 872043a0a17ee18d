"""Reads one utterance: words of the domain, or the knowledge that they are none of it.

Two searches run over the same audio. One expects the domain's language, and always finds *some* sentence in it. The
other is the garbage path: it knows no words and follows any sequence of English sounds. Where the sounds alone
explain the audio much better than the best sentence does, or where that sentence is no language of the domain, the
utterance is out of domain. The bounds were calibrated with synthetic voices (tests/agents/test_offline_stt.py).

Run as a program it serves a parent process: pocketsphinx keeps the interpreter's lock for hundreds of milliseconds at
the end of an utterance, which would make an agent's voice stutter.
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import asdict, dataclass
from typing import BinaryIO

from pocketsphinx import Config, Decoder, get_model_path

from agents.offline.language import Language, coverage, domain_language

SAMPLE_RATE = 16_000

# Weights of the language model against the sounds, in the three passes of the search: a narrow domain deserves trust.
_LM_WEIGHT, _SECOND_PASS_WEIGHT, _BEST_PATH_WEIGHT = 9.0, 10.0, 11.0
_PHONE_WEIGHT, _PHONE_BEAM = 2.0, 1e-20

_BEAMS = {"beam": 1e-64, "pbeam": 1e-64, "wbeam": 1e-45, "fwdflatbeam": 1e-80, "fwdflatwbeam": 1e-45}
"""Wider than usual: with the usual ones the right sentence is sometimes dropped before its end."""

_GAP_AT_BEST, _GAP_AT_WORST = 6.0, 40.0
"""How much worse than the sounds alone a sentence scores, per frame: 5 to 21 in the domain, 22 to 35 outside of it."""
_GAP_BOUND = 22.0
_FLUENT = 0.75
"""The coverage from which on a sentence counts as language of the domain."""
_FOR_BROKEN_LANGUAGE = 12.0
"""How much better a sentence must score that is no language of the domain at all."""
_LEAST_COVERAGE = 0.4
_SHORTEST = SAMPLE_RATE // 10
"""A tenth of a second: less is a click."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read in an utterance."""

    text: str
    """The best sentence of the domain; empty if there were no words at all."""
    in_domain: bool
    """Whether it deserves to be believed."""
    confidence: float
    """From 0 to 1; above 0.5 exactly when `in_domain`."""


class Recogniser:
    """pocketsphinx with its bundled English model, for one caller at a time. Not safe for several threads."""

    def __init__(self, language: Language | None = None) -> None:
        language = language or domain_language()
        self._known = language.sequences()
        self._decoder = Decoder(
            Config(
                samprate=SAMPLE_RATE,
                loglevel="FATAL",
                lm=None,
                dict=str(language.dictionary),
                **_BEAMS,
                lw=_LM_WEIGHT,
                fwdflatlw=_SECOND_PASS_WEIGHT,
                bestpathlw=_BEST_PATH_WEIGHT,
            )
        )
        self._decoder.add_lm_file("domain", str(language.model))
        # A search takes its parameters from the configuration at the moment at which it is added.
        self._decoder.config["lw"] = _PHONE_WEIGHT
        self._decoder.config["beam"] = self._decoder.config["pbeam"] = _PHONE_BEAM
        self._decoder.add_allphone_file("sounds", get_model_path("en-us/en-us-phone.lm.bin"))

    def read(self, samples: bytes) -> Reading:
        """Reads one whole utterance: mono, 16 bit, `SAMPLE_RATE`. Takes about a tenth of its duration."""
        if len(samples) < 2 * _SHORTEST:
            return Reading(text="", in_domain=False, confidence=0.0)
        text, score = self._search("domain", samples)
        _, of_sounds = self._search("sounds", samples)
        if not text or of_sounds is None or score is None:
            return Reading(text="", in_domain=False, confidence=0.0)
        return self._judge(text, gap=of_sounds - score)

    def _search(self, name: str, samples: bytes) -> tuple[str, float | None]:
        decoder = self._decoder
        decoder.activate_search(name)
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        if found is None or decoder.n_frames() == 0:
            return "", None
        return found.hypstr, decoder.logmath.log(found.best_score) / decoder.n_frames()

    def _judge(self, text: str, *, gap: float) -> Reading:
        known = coverage(text.split(), self._known)
        bound = _GAP_BOUND - _FOR_BROKEN_LANGUAGE * max(0.0, _FLUENT - known)
        in_domain = gap <= bound and known >= _LEAST_COVERAGE
        if in_domain:
            confidence = 0.5 + 0.5 * min(1.0, max(0.02, (bound - gap) / (bound - _GAP_AT_BEST)))
        else:
            confidence = 0.5 * max(0.0, min(0.98, (_GAP_AT_WORST - gap) / (_GAP_AT_WORST - bound)))
        return Reading(text=text, in_domain=in_domain, confidence=round(confidence, 3))


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answers requests until `source` ends: a length (4 bytes, little endian) and samples; a line of JSON."""
    recogniser = Recogniser()
    while len(header := source.read(4)) == 4:
        (length,) = struct.unpack("<I", header)
        reading = recogniser.read(source.read(length))
        sink.write(json.dumps(asdict(reading)).encode() + b"\n")
        sink.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
