"""Speech to text within limits: seconds as they are sent, a stream until it is closed, audio that waits is not lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import aiohttp
import pytest
from livekit.agents import APIError, stt
from livekit.plugins import deepgram

from coordination.livekit.limited import LimitedSTT, ProviderBusy, QuotaNews, Waiting
from coordination.testing.emulators import DeepgramEmulator, Fault
from tests.providers.conftest import Limited
from tests.providers.limiting import beat, budget, eventually_fits, fits, left, lose_slots, used
from tests.providers.sounds import AGAIN, ONCE, tone, utterance

SECONDS = 100
LENGTH = 1.4
"""Seconds of one utterance with the silence around it."""


def ears(provider: DeepgramEmulator, http: aiohttp.ClientSession) -> deepgram.STT:
    return deepgram.STT(base_url=provider.base_url, api_key="acme", http_session=http)


def speak(stream: stt.RecognizeStream, times: int = 1) -> None:
    for _ in range(times):
        for frame in utterance():
            stream.push_frame(frame)


async def understood(stream: stt.RecognizeStream) -> str:
    """The next final transcript."""
    async with asyncio.timeout(5):
        async for event in stream:
            if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                return event.alternatives[0].text
    raise AssertionError("the stream ended without a transcript")


async def test_seconds_are_settled_as_the_provider_counted(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(audio_seconds=SECONDS, streams=1)
    async with DeepgramEmulator() as provider:
        hearing = LimitedSTT(ears(provider, http), budget=budget(coordinator), slice_size=2)
        async with hearing.stream(conn_options=ONCE) as stream:
            speak(stream, times=3)
            for _ in range(3):
                await understood(stream)

    counted = provider.judge.total("audio_seconds")
    assert counted == pytest.approx(3 * LENGTH, abs=0.06)
    assert await left(coordinator, "audio_seconds", SECONDS) == pytest.approx(SECONDS - counted, abs=1)
    assert await used(coordinator, "acme", "audio_seconds") == pytest.approx(counted, abs=0.01)


async def test_a_stream_is_held_until_it_is_closed(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(streams=1)
    async with DeepgramEmulator() as provider:
        hearing = LimitedSTT(ears(provider, http), budget=budget(coordinator))
        async with hearing.stream(conn_options=ONCE) as stream:
            speak(stream)
            await understood(stream)
            assert not await fits(coordinator, streams=1)

    assert await fits(coordinator, streams=1)


async def test_audio_that_waited_for_its_turn_is_understood(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(streams=1)
    holding = await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with DeepgramEmulator(transcripts=["Hello?", "Is anybody there?"]) as provider:
        hearing = LimitedSTT(ears(provider, http), budget=budget(coordinator))
        async with hearing.stream(conn_options=ONCE) as stream:
            speak(stream, times=2)
            await asyncio.sleep(0.05)
            reached = provider.judge.total("requests")
            await holding.close()
            heard = [await understood(stream) for _ in range(2)]

    assert reached == 0
    assert heard == ["Hello?", "Is anybody there?"]


async def test_no_more_is_sent_than_was_reserved(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(audio_seconds=4)
    waiting = Waiting(timeout=timedelta(milliseconds=200))
    async with DeepgramEmulator() as provider:
        hearing = LimitedSTT(ears(provider, http), budget=budget(coordinator), waiting=waiting, slice_size=2)
        async with hearing.stream(conn_options=ONCE) as stream:
            speak(stream, times=4)
            with pytest.raises(ProviderBusy, match="audio_seconds"):
                _ = [event async for event in stream]

    assert 0 < provider.judge.total("audio_seconds") <= 4


async def test_a_refused_stream_gives_everything_back(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(audio_seconds=SECONDS, streams=1)
    async with DeepgramEmulator() as provider:
        provider.fail(Fault.status(429, retry_after=timedelta(seconds=1)))
        told: list[QuotaNews] = []
        hearing = LimitedSTT(ears(provider, http), budget=budget(coordinator, on_news=told.append))
        async with hearing.stream(conn_options=ONCE) as stream:
            speak(stream)
            with pytest.raises(APIError):
                await understood(stream)

    assert [(news.limited, news.retry_after) for news in told] == [(True, timedelta(seconds=1))]
    assert provider.judge.total("audio_seconds") == 0
    assert await fits(coordinator, streams=1)


async def test_a_recording_is_settled_by_its_length(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(audio_seconds=SECONDS, streams=1)
    async with DeepgramEmulator(transcripts=["All of it."]) as provider:
        hearing = LimitedSTT(ears(provider, http), budget=budget(coordinator))
        event = await hearing.recognize(tone(3.0), conn_options=ONCE)

    assert event.alternatives[0].text == "All of it."
    assert await left(coordinator, "audio_seconds", SECONDS) == SECONDS - 3


async def test_a_fallback_listens_when_the_wait_is_too_long(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(streams=1)
    holding = await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with DeepgramEmulator() as first, DeepgramEmulator(transcripts=["Hello?"]) as second:
        hearing = LimitedSTT(
            ears(first, http),
            budget=budget(coordinator),
            waiting=Waiting(fallback_after=timedelta(milliseconds=50)),
            fallback=ears(second, http),
        )
        async with hearing.stream(conn_options=ONCE) as stream:
            speak(stream)
            heard = await understood(stream)
    await holding.close()

    assert heard == "Hello?"
    assert first.judge.total("requests") == 0


async def test_a_cancelled_wait_leaves_no_charge(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(streams=1, audio_seconds=SECONDS)
    holding = await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with DeepgramEmulator() as provider:
        stream = LimitedSTT(ears(provider, http), budget=budget(coordinator)).stream(conn_options=ONCE)
        await asyncio.sleep(0.05)
        await stream.aclose()
    await holding.close()

    await eventually_fits(coordinator, streams=1)
    assert await left(coordinator, "audio_seconds", SECONDS) == SECONDS


async def test_livekits_fallback_adapter_works_on_top(limited: Limited, http: aiohttp.ClientSession) -> None:
    coordinator = await limited(streams=1)
    holding = await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with DeepgramEmulator() as first, DeepgramEmulator(transcripts=["Hello?"]) as second:
        waiting = Waiting(timeout=timedelta(milliseconds=100))
        wrapped = LimitedSTT(ears(first, http), budget=budget(coordinator), waiting=waiting)
        adapter = stt.FallbackAdapter([wrapped, ears(second, http)], max_retry_per_stt=0)
        async with adapter.stream(conn_options=ONCE) as stream:
            # The adapter gives what it hears to the listener that it has chosen at the time.
            while second.judge.open_streams == 0:
                await asyncio.sleep(0.01)
            speak(stream)
            heard = await understood(stream)
        await adapter.aclose()
    await holding.close()

    assert heard == "Hello?"


async def test_each_attempt_of_the_frameworks_own_retries_is_reserved(
    limited: Limited, http: aiohttp.ClientSession
) -> None:
    coordinator = await limited(audio_seconds=SECONDS, requests=5, streams=1)
    async with DeepgramEmulator(transcripts=["Hello?"]) as provider:
        provider.fail(Fault.status(503), times=2)
        hearing = LimitedSTT(ears(provider, http), budget=budget(coordinator))
        async with hearing.stream(conn_options=AGAIN) as stream:
            while provider.judge.total("requests") == 0:
                await asyncio.sleep(0.01)
            speak(stream)
            heard = await understood(stream)

    assert heard == "Hello?"
    assert await left(coordinator, "requests", 5) == 5 - provider.judge.total("requests") == 4


async def test_a_stream_that_lost_its_slot_is_closed_and_has_it_again_before_it_goes_on(
    limited: Limited, http: aiohttp.ClientSession
) -> None:
    """Its process was stopped for so long that another one has the slot."""
    coordinator, elsewhere = await limited(streams=1), await limited(streams=1)
    async with DeepgramEmulator(transcripts=["Hello?", "Is anybody there?"]) as provider:
        hearing = LimitedSTT(ears(provider, http), budget=budget(coordinator))
        async with hearing.stream(conn_options=AGAIN) as stream:
            speak(stream)
            before = await understood(stream)
            await lose_slots(coordinator)
            other = await elsewhere.limits.reserve("emulated", tenant="other", streams=1)
            await beat(coordinator)
            async with asyncio.timeout(5):
                while provider.judge.open_streams:
                    await asyncio.sleep(0.01)

            speak(stream)
            await other.close()
            after = await understood(stream)

    assert (before, after) == ("Hello?", "Is anybody there?")
    assert provider.judge.peak_streams == 1
