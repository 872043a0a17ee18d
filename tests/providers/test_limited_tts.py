"""A voice within limits: characters as they are sent, a stream until it is closed, fillers and fallbacks."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import aiohttp
import numpy as np
import pytest
from livekit.agents import APIConnectOptions, APIError, tts
from livekit.plugins import elevenlabs

from coordination.livekit.limited import LimitedTTS, ProviderBusy, QuotaNews, Waiting
from coordination.testing.emulators import ElevenLabsEmulator, Fault, Quota
from tests.providers.conftest import Limited
from tests.providers.limiting import beat, budget, eventually_fits, fits, left, lose_slots
from tests.providers.sounds import AGAIN, ONCE, silence, tone

TEXT = "Good morning, how can I help you today?"
CHARACTERS = 1000
SHORT = Waiting(timeout=timedelta(milliseconds=200))


def voice(provider: ElevenLabsEmulator, http: aiohttp.ClientSession, rate: int = 16000) -> elevenlabs.TTS:
    encoding = "pcm_16000" if rate == 16000 else "pcm_24000"
    return elevenlabs.TTS(base_url=provider.base_url, api_key="acme", http_session=http, encoding=encoding)


async def say(speaker: tts.TTS, text: str = TEXT, options: APIConnectOptions = ONCE) -> list[tts.SynthesizedAudio]:
    async with speaker.stream(conn_options=options) as stream:
        for word in text.split(" "):
            stream.push_text(f"{word} ")
        stream.end_input()
        return [audio async for audio in stream]


def seconds(audio: list[tts.SynthesizedAudio]) -> float:
    return sum(piece.frame.duration for piece in audio)


def pitch(audio: list[tts.SynthesizedAudio]) -> float:
    samples = np.concatenate([np.frombuffer(bytes(piece.frame.data), np.int16) for piece in audio])
    return float(np.argmax(np.abs(np.fft.rfft(samples[:8000], n=16000))))


async def test_whole_texts_are_settled_as_the_provider_counted(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(characters=CHARACTERS, requests=10, streams=1)
    async with ElevenLabsEmulator() as provider:
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator))
        for _ in range(3):
            frame = await speaker.synthesize(TEXT, conn_options=ONCE).collect()
            assert frame.duration > 1

    assert provider.judge.total("characters") == 3 * len(TEXT)
    assert await left(coordinator, "characters", CHARACTERS) == CHARACTERS - provider.judge.total("characters")


async def test_streamed_characters_are_settled_as_the_provider_counted(
    limited: Limited, http: aiohttp.ClientSession
) -> None:
    coordinator = await limited(characters=CHARACTERS, requests=10, streams=1)
    text = " ".join([TEXT] * 4)
    async with ElevenLabsEmulator() as provider:
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator), slice_size=50)
        audio = await say(speaker, text)
        await speaker.aclose()

    assert seconds(audio) > 4
    assert provider.judge.total("characters") == len(text) + 1
    assert await left(coordinator, "characters", CHARACTERS) == CHARACTERS - provider.judge.total("characters")
    assert await left(coordinator, "requests", 10) == 9


async def test_a_barge_in_frees_the_stream_and_pays_for_what_was_sent(
    limited: Limited, http: aiohttp.ClientSession
) -> None:
    coordinator = await limited(characters=CHARACTERS, streams=1)
    async with ElevenLabsEmulator(pace=timedelta(milliseconds=50)) as provider:
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator))
        stream = speaker.stream(conn_options=ONCE)
        stream.push_text(f"{TEXT} ")
        stream.flush()
        await anext(stream)
        during = await fits(coordinator, streams=1)
        await stream.aclose()

        assert not during
        assert await fits(coordinator, streams=1)
        await speaker.aclose()
    assert await left(coordinator, "characters", CHARACTERS) == CHARACTERS - len(TEXT) - 1


async def test_no_more_is_sent_than_was_reserved(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(characters=100)
    async with ElevenLabsEmulator() as provider:
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator), waiting=SHORT, slice_size=50)
        with pytest.raises(ProviderBusy, match="characters"):
            await say(speaker, " ".join([TEXT] * 4))
        await speaker.aclose()

    assert 0 < provider.judge.total("characters") <= 100


async def test_a_stream_without_text_reserves_nothing(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(characters=CHARACTERS, requests=1)
    async with ElevenLabsEmulator() as provider:
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator))
        async with speaker.stream(conn_options=ONCE) as stream:
            stream.end_input()
            assert [audio async for audio in stream] == []

    assert await fits(coordinator, requests=1)


async def test_what_the_provider_refused_is_given_back(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(characters=CHARACTERS, streams=1)
    async with ElevenLabsEmulator() as provider:
        provider.fail(Fault.status(503), times=2)
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator))
        with pytest.raises(APIError):
            await say(speaker)
        with pytest.raises(APIError):
            await speaker.synthesize(TEXT, conn_options=ONCE).collect()

    assert await left(coordinator, "characters", CHARACTERS) == CHARACTERS
    assert await fits(coordinator, streams=1)


async def test_a_filler_is_played_while_the_caller_would_hear_silence(
    limited: Limited, http: aiohttp.ClientSession
) -> None:
    coordinator = await limited(streams=1)
    holding = await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with ElevenLabsEmulator() as provider:
        speaker = LimitedTTS(
            voice(provider, http),
            budget=budget(coordinator),
            waiting=Waiting(filler_after=timedelta(milliseconds=50)),
            filler=[silence(0.2), tone(0.3)],
        )
        async with speaker.stream(conn_options=ONCE) as stream:
            stream.push_text(f"{TEXT} ")
            stream.end_input()
            first = await anext(stream)
            reached = provider.judge.total("requests")
            await holding.close()
            rest = [audio async for audio in stream]
        await speaker.aclose()

    assert first.frame.duration == pytest.approx(0.2, abs=0.02)
    assert reached == 0
    assert seconds(rest) > 0.3 + 1


async def test_a_fallback_speaks_in_the_promised_format(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(streams=1)
    await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with ElevenLabsEmulator() as first, ElevenLabsEmulator() as second:
        speaker = LimitedTTS(
            voice(first, http),
            budget=budget(coordinator),
            waiting=Waiting(fallback_after=timedelta(milliseconds=50)),
            fallback=voice(second, http, rate=24000),
        )
        streamed = await say(speaker)
        whole = await speaker.synthesize(TEXT, conn_options=ONCE).collect()
        await speaker.aclose()

    assert first.judge.total("requests") == 0
    assert second.judge.total("requests") == 2
    assert {piece.frame.sample_rate for piece in streamed} == {16000} == {whole.sample_rate}
    assert pitch(streamed) == pytest.approx(440, abs=5)


async def test_livekits_adapters_work_on_top(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(requests=1)
    async with ElevenLabsEmulator() as first, ElevenLabsEmulator() as second:
        speakers = [
            LimitedTTS(voice(first, http), budget=budget(coordinator), waiting=SHORT),
            voice(second, http),
        ]
        adapter = tts.FallbackAdapter(list[tts.TTS](speakers))
        heard = [seconds(await say(adapter)) for _ in range(2)]
        await adapter.aclose()
        for speaker in speakers:
            await speaker.aclose()

    assert min(heard) > 1
    assert first.judge.total("requests") == 1
    assert second.judge.total("requests") == 1


async def test_a_cancelled_wait_leaves_no_charge(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(streams=1, characters=CHARACTERS)
    holding = await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with ElevenLabsEmulator() as provider:
        stream = LimitedTTS(voice(provider, http), budget=budget(coordinator)).stream(conn_options=ONCE)
        stream.push_text(TEXT)
        await asyncio.sleep(0.05)
        await stream.aclose()
    await holding.close()

    await eventually_fits(coordinator, streams=1)
    assert await left(coordinator, "characters", CHARACTERS) == CHARACTERS


async def test_a_refusal_in_mid_stream_is_read_from_its_words(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(characters=CHARACTERS)
    told: list[QuotaNews] = []
    async with ElevenLabsEmulator(quota=Quota(characters=20)) as provider:
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator, on_news=told.append))
        with pytest.raises(APIError):
            await say(speaker)
        await speaker.aclose()

    assert [news.limited for news in told] == [True]


async def test_each_attempt_of_the_frameworks_own_retries_is_reserved(
    limited: Limited, http: aiohttp.ClientSession
) -> None:
    coordinator = await limited(characters=CHARACTERS, requests=5, streams=1)
    async with ElevenLabsEmulator() as provider:
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator))
        provider.fail(Fault.status(503), times=2)
        whole = await speaker.synthesize(TEXT, conn_options=AGAIN).collect()
        provider.fail(Fault.status(503), times=2)
        streamed = await say(speaker, options=AGAIN)
        await speaker.aclose()

    assert min(whole.duration, seconds(streamed)) > 1
    assert await left(coordinator, "characters", CHARACTERS) == CHARACTERS - provider.judge.total("characters")
    assert await left(coordinator, "requests", 5) == 3


async def test_a_voice_that_lost_its_slot_is_cut_off(limited: Limited, http: aiohttp.ClientSession) -> None:
    """Its process was stopped for so long that another one has the slot: the framework decides on what was not said."""
    coordinator, elsewhere = await limited(streams=1), await limited(streams=1)
    async with ElevenLabsEmulator(pace=timedelta(milliseconds=50)) as provider:
        speaker = LimitedTTS(voice(provider, http), budget=budget(coordinator))
        async with speaker.stream(conn_options=ONCE) as stream:
            stream.push_text(f"{TEXT} ")
            stream.flush()
            await anext(stream)
            await lose_slots(coordinator)
            await elsewhere.limits.reserve("emulated", tenant="other", streams=1)
            await beat(coordinator)
            with pytest.raises(APIError, match="lost its slot"):
                _ = [audio async for audio in stream]
        await speaker.aclose()
