"""The kit's voices and its reader: who speaks can be told apart, what is said can be read."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pytest

from coordination.errors import InvalidArgument
from coordination.testing import speech
from coordination.testing.likeness import ALIKE, likeness, spectrum
from coordination.testing.reading import Phrase, Reader, resample
from coordination.testing.recording import SAMPLE_RATE, Samples
from coordination.testing.speech import PRESETS, SpeechError, Voice, synthesize

SENTENCE = "Your next payment is due on the first of December."


def spoken(text: str, voice: Voice) -> Samples:
    said = synthesize(text, voice=voice)
    return resample(said.samples, said.sample_rate, SAMPLE_RATE)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(["how can I help you", "Welcome to Bluebird Internet!"])


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_speaks(name: str) -> None:
    speech = synthesize(SENTENCE, voice=PRESETS[name])

    assert 2 < speech.duration.total_seconds() < 6
    assert 5_000 < np.abs(speech.samples.astype(int)).max() < 32_767


def test_voices_differ_from_each_other() -> None:
    said = [synthesize(SENTENCE, voice=voice).samples for voice in PRESETS.values()]

    assert len({samples.tobytes() for samples in said}) == len(PRESETS)


def test_threads_that_speak_at_once_do_not_mix_their_voices() -> None:
    alone = {name: spectrum(spoken(SENTENCE, voice)) for name, voice in PRESETS.items()}

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda name: (name, spectrum(spoken(SENTENCE, PRESETS[name]))), list(PRESETS) * 4))

    for name, said in together:
        assert likeness(alone[name], said) >= ALIKE
        assert max(likeness(alone[other], said) for other in PRESETS if other != name) < ALIKE


@pytest.mark.parametrize("voice", [Voice(name="xx-none"), Voice(name="en-us", variant="nobody")])
def test_a_voice_that_does_not_exist_is_named(voice: Voice) -> None:
    with pytest.raises(SpeechError, match=voice.full_name.replace("+", r"\+")):
        synthesize(SENTENCE, voice=voice)


@pytest.mark.parametrize("text", ["", " ", "..."])
def test_nothing_to_say_is_no_sound(text: str) -> None:
    assert synthesize(text).samples.size == 0


@pytest.mark.parametrize("name", ["receptionist", "billing", "technical"])
def test_the_reader_finds_a_phrase_where_it_is_said_and_only_there(reader: Reader, name: str) -> None:
    voice = PRESETS[name]

    assert reader.find(spoken("Good morning, welcome to Bluebird Internet.", voice)) == (reader.phrases[1],)
    assert reader.phrases[0] in reader.find(spoken("Hello. How can I help you?", voice))
    assert reader.find(spoken("You are welcome. I can help you with your bill.", voice)) == ()
    assert reader.find(spoken(SENTENCE, voice)) == ()


def test_words_that_no_dictionary_has_are_named_before_anybody_is_called() -> None:
    with pytest.raises(InvalidArgument, match="'qwertzu'"):
        Reader(["welcome to qwertzu"])
    with pytest.raises(InvalidArgument, match="'12'"):
        Reader(["hello", "12"])


def test_a_long_phrase_may_have_one_word_misread_unless_that_is_a_common_sentence() -> None:
    phrase = Phrase.of("Thank you for calling")

    assert phrase.is_in(("well", "thank", "you", "for", "falling"))
    assert not phrase.is_in(("thank", "you", "for", "your", "patience"))
    assert not Phrase.of("welcome to").is_in(("welcome", "too"))


def test_resampling_keeps_the_tone_and_lets_nothing_fold_over() -> None:
    moments = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    low, high = (8000 * np.sin(2 * np.pi * hertz * moments) for hertz in (1000, 11_000))

    lower = resample(low.astype(np.int16), SAMPLE_RATE, 16_000)
    folded = resample(high.astype(np.int16), SAMPLE_RATE, 16_000)

    assert len(lower) == 16_000
    assert int(np.argmax(np.abs(np.fft.rfft(lower)))) == pytest.approx(1000, abs=2)
    assert np.abs(folded[100:-100].astype(int)).max() < 200


def test_callers_who_begin_to_speak_at_once_share_one_synthesiser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded twice in one process, the library crashes it."""
    begun = threading.Barrier(8)
    loaded: list[object] = []

    @lru_cache(maxsize=1)
    def load() -> object:
        loaded.append(object())
        time.sleep(0.05)
        return loaded[-1]

    monkeypatch.setattr(speech, "_loaded", load)

    def first() -> object:
        begun.wait()
        return speech._espeak()

    with ThreadPoolExecutor(8) as pool:
        found = [each.result() for each in [pool.submit(first) for _ in range(8)]]

    assert found == loaded * 8
    assert len(loaded) == 1
