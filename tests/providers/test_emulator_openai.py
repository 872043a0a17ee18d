"""The real OpenAI plugin against the emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from livekit.agents import APIConnectionError, APIStatusError, function_tool, llm
from livekit.plugins import openai

from coordination.testing.emulators import ChatReply, Fault, OpenAIEmulator, Quota, ScriptedCall
from tests.providers.sounds import ONCE, watch_headers

Model = Callable[..., openai.LLM]


@pytest.fixture
async def opened() -> AsyncIterator[list[openai.LLM]]:
    """Closes the models that a test has made."""
    made: list[openai.LLM] = []
    yield made
    for one in made:
        await one.aclose()


@pytest.fixture
def model(opened: list[openai.LLM]) -> Model:
    def make(provider: OpenAIEmulator, key: str = "acme") -> openai.LLM:
        opened.append(openai.LLM(model="gpt-4.1-mini", base_url=provider.base_url, api_key=key))
        return opened[-1]

    return make


def question(text: str = "What does it cost?") -> llm.ChatContext:
    chat = llm.ChatContext()
    chat.add_message(role="user", content=text)
    return chat


async def ask(asked: openai.LLM, text: str = "What does it cost?") -> llm.CollectedResponse:
    return await asked.chat(chat_ctx=question(text), conn_options=ONCE).collect()


@function_tool
async def look_up(order: str) -> str:
    """Looks an order up."""
    return order


async def test_a_reply_is_streamed_and_its_usage_is_what_the_judge_counted(model: Model) -> None:
    async with OpenAIEmulator(replies=[ChatReply(text="Twenty euros a month.")]) as provider:
        stream = model(provider).chat(chat_ctx=question(), conn_options=ONCE)
        chunks = [chunk async for chunk in stream]
        await stream.aclose()

    text = [chunk.delta.content for chunk in chunks if chunk.delta and chunk.delta.content]
    usage = chunks[-1].usage
    assert "".join(text) == "Twenty euros a month."
    assert len(text) > 1
    assert usage is not None
    assert usage.total_tokens == provider.judge.total("tokens") == usage.prompt_tokens + usage.completion_tokens
    assert provider.judge.total("requests") == 1


async def test_a_scripted_tool_is_called(model: Model) -> None:
    reply = ChatReply(calls=[ScriptedCall(name="look_up", arguments='{"order": "42"}')])
    async with OpenAIEmulator(replies=[reply]) as provider:
        answer = await model(provider).chat(chat_ctx=question(), tools=[look_up], conn_options=ONCE).collect()

    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("look_up", '{"order": "42"}')]
    assert answer.usage is not None
    assert answer.usage.total_tokens == provider.judge.total("tokens")


async def test_beyond_its_requests_it_answers_429_with_the_time_to_wait(model: Model) -> None:
    async with OpenAIEmulator(quota=Quota(requests=2, period=timedelta(seconds=30))) as provider:
        asked = model(provider)
        met = watch_headers(asked)
        await ask(asked)
        await ask(asked)
        with pytest.raises(APIStatusError) as refused:
            await ask(asked)

    assert refused.value.status_code == 429
    assert 1 <= int(met[0]["retry-after"]) <= 30
    assert met[0]["x-ratelimit-remaining-requests"] == "0"
    assert provider.judge.total("requests") == 2
    assert provider.judge.refused == 1


async def test_beyond_its_tokens_it_refuses_and_a_refused_request_keeps_its_reply(model: Model) -> None:
    async with OpenAIEmulator(replies=[ChatReply(text="First."), ChatReply(text="Second.")]) as provider:
        first = await ask(model(provider))
        provider.judge.quota = Quota(tokens=provider.judge.total("tokens"))
        with pytest.raises(APIStatusError):
            await ask(model(provider))
        provider.judge.quota = Quota()
        second = await ask(model(provider))

    assert (first.text, second.text) == ("First.", "Second.")


async def test_keys_of_one_account_share_its_quota_and_are_counted_apart(model: Model) -> None:
    async with OpenAIEmulator(quota=Quota(requests=2)) as provider:
        await ask(model(provider, "acme"))
        await ask(model(provider, "globex"))
        with pytest.raises(APIStatusError):
            await ask(model(provider, "globex"))

    assert provider.judge.total("requests", key="acme") == 1
    assert provider.judge.total("requests", key="globex") == 1


async def test_a_stream_that_breaks_off_pays_for_what_was_sent(model: Model) -> None:
    async with OpenAIEmulator(default=ChatReply(text="one two three four five six seven eight nine")) as provider:
        provider.fail(Fault.drop(after=3))
        with pytest.raises(APIConnectionError):
            await ask(model(provider))
        broken = provider.judge.total("tokens")
        await ask(model(provider))

    assert 0 < broken < provider.judge.total("tokens") - broken


async def test_a_client_that_hangs_up_pays_for_what_it_was_sent(model: Model) -> None:
    slow = OpenAIEmulator(default=ChatReply(text="word " * 200), pace=timedelta(milliseconds=5))
    async with slow as provider:
        stream = model(provider).chat(chat_ctx=question(), conn_options=ONCE)
        async for chunk in stream:
            if chunk.delta and chunk.delta.content:
                break
        await stream.aclose()
    # Stopping waits for the request, which ends at its next write.

    assert 0 < provider.judge.total("tokens") < 200


async def test_nonsense_in_a_stream_is_an_error_and_a_server_error_is_one(model: Model) -> None:
    async with OpenAIEmulator() as provider:
        provider.fail(Fault.garbage(after=2))
        with pytest.raises(APIConnectionError):
            await ask(model(provider))
        provider.fail(Fault.status(503))
        with pytest.raises(APIStatusError) as failed:
            await ask(model(provider))

    assert failed.value.status_code == 503
