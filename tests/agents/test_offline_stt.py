"""The offline recogniser reads its domain, also in other words and voices, and knows what is not of it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from agents.offline.language import coverage, domain_language
from agents.offline.recogniser import Recogniser
from agents.offline.stt import OfflineSTT
from coordination.testing.voices import CALLER, Voice
from tests.agents.spoken import noise, spoken

VOICES = {
    "caller": CALLER,
    "woman": Voice(name="en-us", variant="f2", pitch=55, rate=140),
    "man": Voice(name="en-us", variant="edward", pitch=45, rate=145),
}

SENTENCES = (
    "why is my bill so high this month",
    "thank you but my internet is not working",
    "yes please",
    "i want to go back to the reception",
    "no thank you that is all",
)

PARAPHRASES = {
    "hello there is a charge on the invoice i do not understand": "charge on the invoice",
    "could somebody in technical support have a look at my connection": "technical support",
    "the light on my router has been red since yesterday": "light on my router",
    "i would like you to send me a technician on friday": "technician on friday",
}
"""What is said, and what of it must have been read."""

OUT_OF_DOMAIN = (
    "what is the weather like in paris tomorrow",
    "i would like to order a pizza with mushrooms",
    "tell me a joke about elephants",
    "my grandmother plays the violin on sundays",
    "can you recommend a good restaurant nearby",
    "who won the football game last night",
    "i need a flight to london in december",
    "could you translate this letter into french",
)


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser()


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences_of_the_domain_are_read_word_for_word(recogniser: Recogniser, sentence: str) -> None:
    reading = recogniser.read(bytes(spoken(sentence).data))

    assert reading.text == sentence
    assert reading.in_domain
    assert reading.confidence > 0.5


@pytest.mark.parametrize(("sentence", "part"), PARAPHRASES.items())
def test_what_matters_of_a_paraphrase_is_read(recogniser: Recogniser, sentence: str, part: str) -> None:
    reading = recogniser.read(bytes(spoken(sentence).data))

    assert reading.in_domain
    assert part in reading.text


@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES.keys())
def test_nothing_outside_of_the_domain_is_taken_for_a_part_of_it(recogniser: Recogniser, voice: Voice) -> None:
    readings = {sentence: recogniser.read(bytes(spoken(sentence, voice=voice).data)) for sentence in OUT_OF_DOMAIN}

    assert [sentence for sentence, reading in readings.items() if reading.in_domain] == []
    assert all(reading.confidence < 0.5 for reading in readings.values())


def test_noise_and_clicks_are_not_believed(recogniser: Recogniser) -> None:
    assert not recogniser.read(bytes(noise(1.0).data)).in_domain
    assert recogniser.read(bytes(noise(0.05).data)).text == ""


def test_coverage_tells_language_of_the_domain_from_its_words_in_any_order() -> None:
    known = domain_language().sequences()

    assert coverage(["why", "is", "my", "bill", "so", "high"], known) == 1.0
    assert coverage(["high", "so", "bill", "my", "is", "why"], known) < 0.3
    assert coverage([], known) == 0.0


async def test_a_session_gets_the_words_from_audio_as_rooms_deliver_it() -> None:
    stt = OfflineSTT()
    try:
        event = await stt.recognize(spoken("please connect me to technical support", rate=48_000))
    finally:
        await stt.aclose()

    assert event.alternatives[0].text == "please connect me to technical support"
    assert event.alternatives[0].confidence > 0.5


async def test_what_is_not_understood_becomes_unclear_instead_of_words() -> None:
    stt = OfflineSTT()
    try:
        event = await stt.recognize(spoken("what is the weather like in paris tomorrow"))
    finally:
        await stt.aclose()

    assert event.alternatives[0].text == "[unclear]"
    assert event.alternatives[0].confidence < 0.5


async def test_reading_leaves_the_event_loop_free() -> None:
    """The recogniser holds the interpreter's lock; in this process the loop would stand still for 200 ms."""
    stt = OfflineSTT()
    audio = spoken("i would like to speak with somebody in billing " * 3)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            longest = max(longest, loop.time() - before)

    try:
        await stt.recognize(spoken("yes please"))
        watching = asyncio.create_task(watch())
        await stt.recognize(audio)
        watching.cancel()
    finally:
        await stt.aclose()

    assert longest < 0.15


async def test_a_recogniser_that_dies_is_started_again() -> None:
    stt = OfflineSTT()
    try:
        await stt.recognize(spoken("yes please"))
        process = stt._reader._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)

        event = await stt.recognize(spoken("yes please"))
    finally:
        await stt.aclose()

    assert event.alternatives[0].text == "yes please"


async def test_closing_ends_the_recognisers_process() -> None:
    stt = OfflineSTT()
    stt.prewarm()
    await stt.recognize(spoken("yes please"))
    process = stt._reader._process
    assert process is not None

    await stt.aclose()

    assert process.poll() == 0
