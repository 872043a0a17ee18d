"""A language model within limits: what is reserved, held, settled and given back, and what a wait sounds like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from livekit.agents import APIConnectOptions, APIStatusError, llm
from livekit.plugins import openai

from coordination.livekit.limited import LimitedLLM, ProviderBusy, QuotaNews, Waiting
from coordination.testing.emulators import ChatReply, Fault, OpenAIEmulator, Quota
from tests.providers.conftest import Limited
from tests.providers.limiting import budget, eventually_fits, fits, left, used
from tests.providers.sounds import ONCE

TOKENS = 1000
SHORT = Waiting(timeout=timedelta(milliseconds=200))
Model = Callable[[OpenAIEmulator], openai.LLM]


@pytest.fixture
async def plugin() -> AsyncIterator[Model]:
    """Factory of the real plugin; closes what a test has made."""
    made: list[openai.LLM] = []

    def make(provider: OpenAIEmulator) -> openai.LLM:
        made.append(openai.LLM(model="gpt-4.1-mini", base_url=provider.base_url, api_key="acme"))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


def question(text: str = "What does it cost?") -> llm.ChatContext:
    chat = llm.ChatContext()
    chat.add_message(role="user", content=text)
    return chat


async def ask(asked: llm.LLM, options: APIConnectOptions = ONCE) -> llm.CollectedResponse:
    return await asked.chat(chat_ctx=question(), conn_options=options).collect()


async def test_what_is_settled_is_what_the_provider_counted(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(tokens=TOKENS, requests=10, streams=5)
    async with OpenAIEmulator(default=ChatReply(text="Twenty euros a month, and ten to begin with.")) as provider:
        asked = LimitedLLM(plugin(provider), budget=budget(coordinator))
        answers = [await ask(asked) for _ in range(3)]

    assert [answer.text for answer in answers] == ["Twenty euros a month, and ten to begin with."] * 3
    assert await left(coordinator, "tokens", TOKENS) == TOKENS - provider.judge.total("tokens")
    assert await left(coordinator, "requests", 10) == 10 - provider.judge.total("requests") == 7


async def test_a_stream_is_held_until_it_is_closed_in_mid_answer(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(streams=1, tokens=TOKENS)
    slow = OpenAIEmulator(default=ChatReply(text="word " * 200), pace=timedelta(milliseconds=5))
    async with slow as provider:
        asked = LimitedLLM(plugin(provider), budget=budget(coordinator))
        stream = asked.chat(chat_ctx=question(), conn_options=ONCE)
        async for chunk in stream:
            if chunk.delta and chunk.delta.content:
                break
        during = await fits(coordinator, streams=1)
        await stream.aclose()

        assert not during
        assert await fits(coordinator, streams=1)
    used = TOKENS - await left(coordinator, "tokens", TOKENS)
    # What the client had read is charged; the provider may have sent a few words more.
    assert 0 < used <= provider.judge.total("tokens") + 1
    assert used < 200


async def test_a_request_without_room_fails_in_time_and_reaches_no_provider(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(requests=1)
    async with OpenAIEmulator() as provider:
        asked = LimitedLLM(plugin(provider), budget=budget(coordinator), waiting=SHORT)
        await ask(asked)
        with pytest.raises(ProviderBusy, match="requests"):
            await ask(asked, APIConnectOptions(max_retry=3, retry_interval=0.01))

    assert provider.judge.total("requests") == 1


async def test_a_request_that_is_cancelled_while_it_waits_leaves_no_charge(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(streams=1, tokens=TOKENS)
    holding = await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with OpenAIEmulator() as provider:
        stream = LimitedLLM(plugin(provider), budget=budget(coordinator)).chat(chat_ctx=question())
        await asyncio.sleep(0.05)
        await stream.aclose()
        await holding.close()

        await eventually_fits(coordinator, streams=1)
        assert await left(coordinator, "tokens", TOKENS) == TOKENS
        assert provider.judge.total("requests") == 0


async def test_a_failed_request_gives_everything_back(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(tokens=TOKENS, requests=5, streams=1)
    async with OpenAIEmulator() as provider:
        provider.fail(Fault.status(503))
        with pytest.raises(APIStatusError):
            await ask(LimitedLLM(plugin(provider), budget=budget(coordinator)))

    assert await left(coordinator, "tokens", TOKENS) == TOKENS
    assert await left(coordinator, "requests", 5) == 5
    assert await fits(coordinator, streams=1)


async def test_each_attempt_of_the_frameworks_own_retries_is_reserved(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(tokens=TOKENS, requests=5)
    async with OpenAIEmulator() as provider:
        provider.fail(Fault.status(503), times=2)
        answer = await ask(
            LimitedLLM(plugin(provider), budget=budget(coordinator)),
            APIConnectOptions(max_retry=3, retry_interval=0.01),
        )

    assert answer.text
    assert await left(coordinator, "tokens", TOKENS) == TOKENS - provider.judge.total("tokens")


async def test_a_filler_is_said_while_the_caller_would_hear_silence(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(streams=1)
    holding = await coordinator.limits.reserve("emulated", tenant="other", streams=1)
    async with OpenAIEmulator(default=ChatReply(text="Twenty euros.")) as provider:
        asked = LimitedLLM(
            plugin(provider),
            budget=budget(coordinator),
            waiting=Waiting(filler_after=timedelta(milliseconds=50)),
            filler="One moment, please.",
        )
        stream = asked.chat(chat_ctx=question(), conn_options=ONCE)
        first = await anext(stream)
        reached = provider.judge.total("requests")
        await holding.close()
        rest = "".join([chunk.delta.content or "" async for chunk in stream if chunk.delta])
        await stream.aclose()

    assert first.delta is not None
    assert first.delta.content == "One moment, please. "
    assert reached == 0
    assert rest == "Twenty euros."


async def test_no_filler_is_said_without_a_wait(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(streams=1)
    async with OpenAIEmulator(default=ChatReply(text="Twenty euros.")) as provider:
        asked = LimitedLLM(plugin(provider), budget=budget(coordinator), filler="One moment, please.")
        answer = await ask(asked)

    assert answer.text == "Twenty euros."


async def test_a_fallback_takes_over_when_the_wait_is_too_long(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(requests=1)
    async with (
        OpenAIEmulator(default=ChatReply(text="From the first.")) as first,
        OpenAIEmulator(default=ChatReply(text="From the second.")) as second,
    ):
        asked = LimitedLLM(
            plugin(first),
            budget=budget(coordinator),
            waiting=Waiting(fallback_after=timedelta(milliseconds=50)),
            fallback=plugin(second),
        )
        answers = [(await ask(asked)).text for _ in range(2)]

    assert answers == ["From the first.", "From the second."]
    assert first.judge.total("requests") == second.judge.total("requests") == 1


async def test_livekits_fallback_adapter_works_on_top(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(requests=1)
    async with (
        OpenAIEmulator(default=ChatReply(text="From the first.")) as first,
        OpenAIEmulator(default=ChatReply(text="From the second.")) as second,
    ):
        adapter = llm.FallbackAdapter(
            [LimitedLLM(plugin(first), budget=budget(coordinator), waiting=SHORT), plugin(second)]
        )
        answers = [(await ask(adapter)).text for _ in range(2)]
        await asyncio.gather(*filter(None, (status.recovering_task for status in adapter._status)))
        await adapter.aclose()

    assert answers == ["From the first.", "From the second."]


async def test_what_the_provider_says_about_its_quota_is_passed_on(limited: Limited, plugin: Model) -> None:
    coordinator = await limited(streams=1)
    told: list[QuotaNews] = []
    quota = Quota(requests=2, tokens=1000, period=timedelta(seconds=30))
    async with OpenAIEmulator(quota=quota) as provider:
        asked = LimitedLLM(plugin(provider), budget=budget(coordinator, on_news=told.append))
        for _ in range(2):
            await ask(asked)
        with pytest.raises(APIStatusError):
            await ask(asked)

    assert [news.limited for news in told] == [False, False, True]
    assert [news.remaining["requests"] for news in told] == [1, 0, 0]
    assert told[-1].retry_after is not None
    assert timedelta(0) < told[-1].retry_after <= timedelta(seconds=30)
    assert told[-1].remaining["tokens"] == 1000 - provider.judge.total("tokens")


async def told_to_all(asked: LimitedLLM) -> None:
    """Waits until what the provider said has been passed on; it is done beside the request."""
    await asyncio.gather(*asked.line.budget._telling)


async def test_a_429_holds_back_all_workers_and_not_just_the_one_that_met_it(limited: Limited, plugin: Model) -> None:
    coordinator, elsewhere = await limited(requests=10), await limited(requests=10)
    async with OpenAIEmulator() as provider:
        provider.fail(Fault.status(429, retry_after=timedelta(seconds=30)))
        asked = LimitedLLM(plugin(provider), budget=budget(coordinator))
        before = await fits(elsewhere, requests=1)
        with pytest.raises(APIStatusError):
            await ask(asked)
        await told_to_all(asked)
        after = await fits(elsewhere, requests=1)

    assert (before, after) == (True, False)


async def test_what_remains_at_the_provider_is_what_remains_for_all(limited: Limited, plugin: Model) -> None:
    coordinator, elsewhere = await limited(tokens=TOKENS), await limited(tokens=TOKENS)
    async with OpenAIEmulator(quota=Quota(tokens=300)) as provider:
        asked = LimitedLLM(plugin(provider), budget=budget(coordinator))
        await ask(asked)
        await told_to_all(asked)

    assert await left(elsewhere, "tokens", TOKENS) == 300 - provider.judge.total("tokens")


async def test_what_many_requests_of_several_workers_settled_is_what_the_provider_counted(
    limited: Limited, plugin: Model
) -> None:
    """Three workers, sixty requests at once, every fifth of which fails first; answers of different lengths."""
    workers = [await limited(tokens=10_000, requests=100, streams=7) for _ in range(3)]
    replies = [ChatReply(text="word " * (number % 13 + 1)) for number in range(60)]
    async with OpenAIEmulator(replies=replies) as provider:
        provider.fail(Fault.status(503), times=12)
        asked = [LimitedLLM(plugin(provider), budget=budget(each, tenant=f"t{n}")) for n, each in enumerate(workers)]
        again = APIConnectOptions(max_retry=12, retry_interval=0.01)
        answers = await asyncio.gather(*(ask(asked[number % 3], again) for number in range(60)))

    assert all(answer.text for answer in answers)
    assert await left(workers[0], "tokens", 10_000) == 10_000 - provider.judge.total("tokens")
    assert await left(workers[0], "requests", 100) == 100 - provider.judge.total("requests") == 40
    settled = [await used(worker, f"t{n}", "tokens") for n, worker in enumerate(workers)]
    assert sum(settled) == provider.judge.total("tokens")
