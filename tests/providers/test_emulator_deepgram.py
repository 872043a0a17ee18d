"""The real Deepgram plugin against the emulator."""

from __future__ import annotations

from datetime import timedelta

import aiohttp
import pytest
from livekit.agents import APIError, APIStatusError, stt
from livekit.plugins import deepgram

from coordination.testing.emulators import DeepgramEmulator, Fault, Quota
from tests.providers.sounds import ONCE, tone, utterance, watch_headers


def ears(provider: DeepgramEmulator, http: aiohttp.ClientSession, key: str = "acme") -> deepgram.STT:
    return deepgram.STT(base_url=provider.base_url, api_key=key, http_session=http)


async def hear(heard: deepgram.STT, utterances: int = 1) -> list[stt.SpeechEvent]:
    """All events of a stream into which that many utterances were spoken, to the end of the last one.

    Not to the end of the stream: the plugin sends keep-alives for another five seconds.
    """
    events: list[stt.SpeechEvent] = []
    async with heard.stream(conn_options=ONCE) as stream:
        for _ in range(utterances):
            for frame in utterance():
                stream.push_frame(frame)
        stream.flush()
        async for event in stream:
            events.append(event)
            utterances -= event.type is stt.SpeechEventType.END_OF_SPEECH
            if utterances == 0:
                break
    return events


def finals(events: list[stt.SpeechEvent]) -> list[str]:
    return [e.alternatives[0].text for e in events if e.type is stt.SpeechEventType.FINAL_TRANSCRIPT]


async def test_transcripts_come_in_their_order(http: aiohttp.ClientSession) -> None:
    async with DeepgramEmulator(transcripts=["My line is slow.", "Since Monday."]) as provider:
        events = await hear(ears(provider, http), utterances=2)

    kinds = [event.type for event in events]
    assert finals(events) == ["My line is slow.", "Since Monday."]
    assert kinds.count(stt.SpeechEventType.START_OF_SPEECH) == 2
    assert kinds.count(stt.SpeechEventType.END_OF_SPEECH) == 2
    assert stt.SpeechEventType.INTERIM_TRANSCRIPT in kinds


async def test_the_audio_that_was_sent_is_what_the_judge_counted(http: aiohttp.ClientSession) -> None:
    async with DeepgramEmulator() as provider:
        await hear(ears(provider, http), utterances=3)

    assert provider.judge.total("audio_seconds") == pytest.approx(3 * 1.4, abs=0.06)
    assert provider.judge.peak_streams == 1
    assert provider.judge.open_streams == 0


async def test_without_a_script_words_are_as_many_as_fit_into_the_time(http: aiohttp.ClientSession) -> None:
    async with DeepgramEmulator() as provider:
        (words,) = finals(await hear(ears(provider, http)))

    assert len(words.split()) == 2


async def test_a_recording_is_transcribed_whole(http: aiohttp.ClientSession) -> None:
    async with DeepgramEmulator(transcripts=["All of it."]) as provider:
        event = await ears(provider, http).recognize(tone(1.0), conn_options=ONCE)

    assert event.alternatives[0].text == "All of it."
    assert provider.judge.total("audio_seconds") == pytest.approx(1.0)


async def test_a_stream_too_many_is_refused_until_another_ends(http: aiohttp.ClientSession) -> None:
    async with DeepgramEmulator(quota=Quota(streams=1)) as provider:
        heard = ears(provider, http)
        headers = watch_headers(heard)
        async with heard.stream(conn_options=ONCE) as first:
            for frame in utterance():
                first.push_frame(frame)
            await anext(first)
            with pytest.raises(APIStatusError) as refused:
                await hear(heard)
        again = await hear(heard)

    assert refused.value.status_code == 429
    assert headers[0]["Retry-After"] == "1"
    assert finals(again)
    assert provider.judge.refused == 1


async def test_a_planned_429_says_when_to_come_back(http: aiohttp.ClientSession) -> None:
    async with DeepgramEmulator() as provider:
        provider.fail(Fault.status(429, retry_after=timedelta(seconds=7)))
        heard = ears(provider, http)
        headers = watch_headers(heard)
        with pytest.raises(APIStatusError) as refused:
            await hear(heard)

    assert refused.value.status_code == 429
    assert headers[0]["Retry-After"] == "7"


async def test_a_connection_that_breaks_is_an_error_and_its_audio_was_used(http: aiohttp.ClientSession) -> None:
    async with DeepgramEmulator() as provider:
        provider.fail(Fault.drop(after=1))
        with pytest.raises(APIError):
            await hear(ears(provider, http))

    assert provider.judge.total("audio_seconds") > 1
    assert provider.judge.open_streams == 0
