"""The real ElevenLabs plugin against the emulator."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from livekit.agents import APIConnectionError, APIError, APIStatusError, tts
from livekit.plugins import elevenlabs

from coordination.testing.emulators import ElevenLabsEmulator, Fault, Quota
from coordination.testing.voices import BILLING
from tests.providers.sounds import ONCE, watch_headers

TEXT = "Good morning, how can I help you today?"


def voice(provider: ElevenLabsEmulator, http: aiohttp.ClientSession, **options: Any) -> elevenlabs.TTS:
    options = {"encoding": "pcm_16000", **options}
    return elevenlabs.TTS(base_url=provider.base_url, api_key="acme", http_session=http, **options)


async def say(speaker: elevenlabs.TTS, text: str = TEXT) -> list[tts.SynthesizedAudio]:
    async with speaker.stream(conn_options=ONCE) as stream:
        for word in text.split(" "):
            stream.push_text(f"{word} ")
        stream.end_input()
        return [audio async for audio in stream]


def seconds(audio: list[tts.SynthesizedAudio]) -> float:
    return sum(piece.frame.duration for piece in audio)


@pytest.mark.parametrize("encoding", ["pcm_16000", "mp3_22050_32"])
async def test_text_is_streamed_as_audio(http: aiohttp.ClientSession, encoding: str) -> None:
    async with ElevenLabsEmulator() as provider:
        speaker = voice(provider, http, encoding=encoding)
        audio = await say(speaker)
        await speaker.aclose()

    assert seconds(audio) == pytest.approx(len(TEXT) * 0.06, rel=0.3)
    assert " ".join(provider.said) == TEXT


async def test_the_characters_that_were_sent_are_what_the_judge_counted(http: aiohttp.ClientSession) -> None:
    async with ElevenLabsEmulator() as provider:
        speaker = voice(provider, http)
        await say(speaker)
        await speaker.aclose()

    assert provider.judge.total("characters") == len(TEXT) + 1  # the plugin ends each text with a space
    assert provider.judge.total("requests") == 1
    assert provider.judge.open_streams == 0


async def test_a_whole_text_goes_over_http(http: aiohttp.ClientSession) -> None:
    async with ElevenLabsEmulator(voice=BILLING) as provider:
        frame = await voice(provider, http).synthesize(TEXT, conn_options=ONCE).collect()

    assert 1 < frame.duration < 4
    assert provider.judge.total("characters") == len(TEXT)


async def test_beyond_its_characters_http_answers_429_with_the_time_to_wait(http: aiohttp.ClientSession) -> None:
    async with ElevenLabsEmulator(quota=Quota(characters=60, period=timedelta(seconds=20))) as provider:
        speaker = voice(provider, http)
        headers = watch_headers(speaker)
        await speaker.synthesize(TEXT, conn_options=ONCE).collect()
        with pytest.raises(APIStatusError) as refused:
            await speaker.synthesize(TEXT, conn_options=ONCE).collect()

    assert refused.value.status_code == 429
    assert 1 <= int(headers[0]["Retry-After"]) <= 20


async def test_beyond_its_characters_a_context_is_told_so(http: aiohttp.ClientSession) -> None:
    async with ElevenLabsEmulator(quota=Quota(characters=60)) as provider:
        speaker = voice(provider, http)
        await say(speaker)
        with pytest.raises(APIError) as refused:
            await say(speaker)
        await speaker.aclose()

    assert "rate_limit_exceeded" in str(refused.value.__cause__)
    assert provider.judge.refused == 1


async def test_a_context_too_many_is_refused_until_another_ends(http: aiohttp.ClientSession) -> None:
    async with ElevenLabsEmulator(quota=Quota(streams=1), pace=timedelta(milliseconds=20)) as provider:
        speaker = voice(provider, http)
        first = asyncio.create_task(say(speaker))
        while provider.judge.open_streams == 0:
            await asyncio.sleep(0.005)
        with pytest.raises(APIError) as refused:
            await say(speaker)
        await first
        await say(speaker)
        await speaker.aclose()

    assert "too_many_concurrent_requests" in str(refused.value.__cause__)
    assert provider.judge.peak_streams == 1


async def test_a_refused_handshake_says_when_to_come_back(http: aiohttp.ClientSession) -> None:
    async with ElevenLabsEmulator() as provider:
        provider.fail(Fault.status(429, retry_after=timedelta(seconds=3)))
        speaker = voice(provider, http)
        headers = watch_headers(speaker)
        with pytest.raises(APIStatusError) as refused:
            await say(speaker)

    assert refused.value.status_code == 429
    assert headers[0]["Retry-After"] == "3"


@pytest.mark.parametrize("fault", [Fault.drop(after=2), Fault.garbage(after=2)])
async def test_a_socket_that_breaks_is_an_error_after_partial_audio(http: aiohttp.ClientSession, fault: Fault) -> None:
    async with ElevenLabsEmulator() as provider:
        provider.fail(fault)
        async with voice(provider, http).stream(conn_options=ONCE) as stream:
            stream.push_text(TEXT)
            stream.end_input()
            audio = [await anext(stream)]
            with pytest.raises(APIError):
                _ = [piece async for piece in stream]

    assert seconds(audio) > 0
    assert provider.judge.open_streams == 0


async def test_an_answer_that_breaks_off_or_is_no_audio_is_an_error(http: aiohttp.ClientSession) -> None:
    async with ElevenLabsEmulator() as provider:
        for fault in (Fault.drop(after=1), Fault.garbage(), Fault.status(500)):
            provider.fail(fault)
            with pytest.raises((APIConnectionError, APIStatusError)):
                await voice(provider, http).synthesize(TEXT, conn_options=ONCE).collect()

    assert provider.judge.open_streams == 0
