"""The offline model calls the tools it is given, reports what they say, and asks back instead of guessing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from livekit.agents import llm

from agents.billing.tools import TOOLS as BILLING
from agents.offline.llm import ASK_BACK, GO_ON, WELCOME_BACK, OfflineLLM
from agents.receptionist.tools import TOOLS as RECEPTION
from agents.technical.tools import TOOLS as TECHNICAL
from coordination.livekit.entry import Continuation, EntryKind

TOOLS = {"receptionist": RECEPTION, "billing": BILLING, "technical": TECHNICAL}


async def answer(chat: llm.ChatContext, role: str, **options: Any) -> llm.CollectedResponse:
    async with OfflineLLM().chat(chat_ctx=chat, tools=list(TOOLS[role]), **options) as stream:
        return await stream.collect()


def heard(text: str, *, asked: str = "How can I help you?", confidence: float | None = 0.9) -> llm.ChatContext:
    chat = llm.ChatContext.empty()
    chat.add_message(role="system", content="You are an assistant.")
    chat.add_message(role="assistant", content=asked)
    chat.items.append(llm.ChatMessage(role="user", content=[text], transcript_confidence=confidence))
    return chat


def result(chat: llm.ChatContext, tool: str, output: str, **options: Any) -> llm.ChatContext:
    call = llm.FunctionCall(call_id="call_1", name=tool, arguments="{}")
    chat.items += [call, llm.FunctionCallOutput(call_id="call_1", name=tool, output=output, is_error=False, **options)]
    return chat


@pytest.mark.parametrize(
    ("role", "words", "tool"),
    [
        ("receptionist", "why is my bill so high this month", "to_billing"),
        ("receptionist", "my internet is very slow since yesterday", "to_technical"),
        ("receptionist", "can i talk to a technician please", "to_technical"),
        ("receptionist", "what are your opening hours", "opening_hours"),
        ("billing", "why is my bill so high this month", "explain_invoice"),
        ("billing", "how much do i have to pay", "account_balance"),
        ("billing", "thank you but my internet is not working", "to_technical"),
        ("billing", "i want to go back to the reception", "to_receptionist"),
        ("technical", "could you check my line", "check_line"),
        ("technical", "is there an outage in my area", "check_outage"),
        ("technical", "there is a charge on my invoice that i do not understand", "to_billing"),
        ("technical", "back to the front desk please", "to_receptionist"),
    ],
)
async def test_the_same_words_lead_to_the_tool_that_the_agent_has(role: str, words: str, tool: str) -> None:
    reply = await answer(heard(words), role)

    assert [call.name for call in reply.tool_calls] == [tool]
    assert reply.text == ""


async def test_a_handover_takes_the_callers_words_and_their_topic_along() -> None:
    reply = await answer(heard("i think you charged me twice"), "receptionist")

    arguments = json.loads(reply.tool_calls[0].arguments)
    assert arguments["topic"] == "refund"
    assert "charged me twice" in arguments["summary"]


async def test_yes_means_what_was_offered_last() -> None:
    offer = "I hear that your connection makes trouble. Shall I check your line?"

    agreed = await answer(heard("yes please", asked=offer), "technical")
    declined = await answer(heard("no thank you", asked=offer), "technical")
    unasked = await answer(heard("yes please"), "technical")

    assert [call.name for call in agreed.tool_calls] == ["check_line"]
    assert declined.tool_calls == []
    assert unasked.tool_calls == []


async def test_an_offer_of_another_agent_counts_too() -> None:
    quote = "[said by technical] " + json.dumps("The signal is weak. Shall I send a technician?")

    reply = await answer(heard("yes please tomorrow morning", asked=quote), "technical")

    assert reply.tool_calls[0].name == "book_technician"
    assert json.loads(reply.tool_calls[0].arguments) == {"when": "tomorrow morning"}


async def test_a_missing_detail_is_asked_for_before_anything_is_done() -> None:
    asked = await answer(heard("please send a technician"), "technical")
    told = await answer(heard("tomorrow afternoon would be good", asked=asked.text), "technical")

    assert asked.tool_calls == []
    assert "When would it suit you" in asked.text
    assert json.loads(told.tool_calls[0].arguments) == {"when": "tomorrow afternoon"}


async def test_what_cannot_be_taken_back_is_confirmed_first() -> None:
    asked = await answer(heard("i want my money back"), "billing")
    agreed = await answer(heard("yes please", asked=asked.text), "billing")

    assert asked.tool_calls == []
    assert [call.name for call in agreed.tool_calls] == ["request_refund"]


@pytest.mark.parametrize("role", TOOLS)
@pytest.mark.parametrize(
    ("words", "confidence"),
    [
        ("[unclear]", 0.2),
        ("i would like a pizza with mushrooms", None),
        ("my bill", 0.3),
        ("", 0.9),
    ],
)
async def test_what_is_not_understood_gets_a_question_back_and_no_action(
    role: str, words: str, confidence: float | None
) -> None:
    chat = heard(words or "[unclear]", confidence=confidence)

    reply = await answer(chat, role)

    assert reply.tool_calls == []
    assert reply.text.strip() == ASK_BACK[0]


async def test_not_understanding_twice_is_said_in_other_words() -> None:
    reply = await answer(heard("[unclear]", asked=ASK_BACK[0]), "billing")

    assert reply.text.strip() == ASK_BACK[1]


async def test_the_clear_part_of_a_turn_is_answered() -> None:
    reply = await answer(heard("[unclear] can you check my line", confidence=0.4), "technical")

    assert [call.name for call in reply.tool_calls] == ["check_line"]


async def test_a_tools_result_is_told_and_followed_by_a_question() -> None:
    chat = result(heard("check my line"), "check_line", "It dropped 14 times.")

    reply = await answer(chat, "technical")

    assert reply.text.strip() == "It dropped 14 times. Shall I send a technician?"
    assert reply.tool_calls == []


async def test_a_handover_that_fails_is_told_to_the_caller_in_plain_words() -> None:
    reason = "The handoff to 'billing' came to nothing: no agent of that role took it within 10 s."
    chat = result(heard("my bill please"), "to_billing", reason)

    reply = await answer(chat, "receptionist")

    assert "I can not reach my colleagues in billing" in reply.text
    assert "handoff" not in reply.text


async def test_a_late_result_is_told_when_the_framework_asks_for_it() -> None:
    chat = result(heard("my bill please"), "to_billing", "The handoff to 'billing' came to nothing: it died.")
    chat.add_message(role="assistant", content="One moment please.")
    chat.add_message(role="system", content="Tell the caller about the result of call_1.")

    reply = await answer(chat, "receptionist", tool_choice="none")

    assert "I can not reach my colleagues in billing" in reply.text


async def test_a_silent_progress_note_of_a_tool_is_not_told() -> None:
    chat = result(heard("my bill please"), "to_billing", "being prepared", reply_required=False)
    chat.items.append(llm.ChatMessage(role="user", content=["are you still there"], transcript_confidence=0.9))

    reply = await answer(chat, "receptionist")

    assert "prepared" not in reply.text
    assert reply.text.startswith("Yes, I am here")


async def test_without_permission_no_tool_is_called() -> None:
    reply = await answer(heard("why is my bill so high"), "billing", tool_choice="none")

    assert reply.tool_calls == []


async def test_after_a_takeover_the_callers_open_question_is_answered() -> None:
    story = Continuation(kind=EntryKind.TAKEOVER, from_role="technical", reason="the agent is gone")
    chat = heard("could you check my line")
    chat.add_message(role="system", content=story.as_message())
    chat.add_message(role="system", content=story.instructions())

    reply = await answer(chat, "technical")

    assert [call.name for call in reply.tool_calls] == ["check_line"]


async def test_after_a_takeover_without_an_open_question_nobody_is_greeted_again() -> None:
    story = Continuation(kind=EntryKind.TAKEOVER, from_role="technical", reason="the agent is gone")
    chat = llm.ChatContext.empty()
    chat.add_message(role="assistant", content="Is there anything else?")
    chat.add_message(role="system", content=story.as_message())
    chat.add_message(role="system", content=story.instructions())

    reply = await answer(chat, "technical")

    assert reply.text.strip() == GO_ON


async def test_a_caller_who_comes_back_is_welcomed_and_not_greeted() -> None:
    chat = llm.ChatContext.empty()
    chat.add_message(role="assistant", content="Shall I check your line?")
    chat.add_message(role="system", content="The caller is back. In one short sentence, welcome them back and go on.")

    reply = await answer(chat, "technical")

    assert reply.text.strip() == WELCOME_BACK
