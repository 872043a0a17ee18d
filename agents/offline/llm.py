"""A language model without a network, behind LiveKit's ordinary `llm.LLM`: rules instead of understanding.

It reads the same chat context as a real model, calls the same tools in the same way, and speaks about their results,
so tool calls and handoffs take the path that they take with a real one. What it can't do: understand anything that
its rules don't name, follow the instructions of a prompt, or lead a conversation. What it does not understand, and
what the recogniser marks as unclear, gets a question back, never an action.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr, llm, utils
from livekit.agents.llm.utils import build_legacy_openai_schema

from agents.offline.dialogue import Moment, moment
from agents.offline.intents import ANYTHING_ELSE, BY_NAME, DECLINE, FOLLOW_UP, INTENTS, NO, OFFERS, YES, Intent, time_in
from agents.offline.unclear import clear_part

ASK_BACK = (
    "I am sorry, I did not understand that. Is it about your bill, or about your internet connection?",
    "I did not understand that either. Could you say it in other words? I can help with bills and connections.",
)
WELCOME_BACK = "Welcome back. Let us go on where we stopped. What can I do for you?"
GO_ON = "I am going on with your call now. What can I do for you?"
HOW_CAN_I_HELP = "How can I help you?"
_LEAST_CONFIDENCE = 0.5
_INTERNAL = "An internal error occurred"
"""The framework's word for an exception that says nothing to the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model answers: words, or the call of one tool."""

    text: str = ""
    tool: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)


class OfflineLLM(llm.LLM[str]):
    """Rules over the conversation (see `intents.py`). Keeps no state: everything is in the chat context."""

    @property
    def model(self) -> str:
        return "rules"

    @property
    def provider(self) -> str:
        return "offline"

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> llm.LLMStream:
        usable = [] if tool_choice == "none" else tools or []
        return _Answer(self, chat_ctx=chat_ctx, tools=usable, conn_options=conn_options)


class _Answer(llm.LLMStream):
    async def _run(self) -> None:
        reply = decide(moment(self._chat_ctx), parameters_of(self._tools))
        name = utils.shortuuid("offline_llm_")
        if reply.tool:
            call = llm.FunctionToolCall(
                name=reply.tool, arguments=json.dumps(reply.arguments), call_id=utils.shortuuid("call_")
            )
            self._event_ch.send_nowait(
                llm.ChatChunk(id=name, delta=llm.ChoiceDelta(role="assistant", tool_calls=[call]))
            )
            return
        for word in reply.text.split(" "):
            delta = llm.ChoiceDelta(role="assistant", content=f"{word} ")
            self._event_ch.send_nowait(llm.ChatChunk(id=name, delta=delta))


def parameters_of(tools: list[llm.Tool]) -> dict[str, frozenset[str]]:
    """The tools that can be called by name, with the names of their parameters."""
    found: dict[str, frozenset[str]] = {}
    for name, tool in llm.ToolContext(tools).function_tools.items():
        if isinstance(tool, llm.FunctionTool):
            schema = build_legacy_openai_schema(tool)["function"]["parameters"]
        else:
            schema = tool.info.raw_schema.get("parameters", {})
        found[name] = frozenset(schema.get("properties", {}))
    return found


def decide(now: Moment, tools: Mapping[str, frozenset[str]]) -> Reply:
    """What to answer. Pure: the same moment and tools give the same reply."""
    if now.result is not None:
        return Reply(text=_report(now.result))
    if now.caller:
        return _answer(now, tools)
    return Reply(text=_without_words(now))


def _answer(now: Moment, tools: Mapping[str, frozenset[str]]) -> Reply:
    words = clear_part(now.caller).lower().replace("can't", "can not").replace("'", "")
    if not words or (now.confidence < _LEAST_CONFIDENCE and words == now.caller.lower()):
        return Reply(text=_ask_back(now))
    intent = _intent(words, now.last_said)
    if intent is None:
        return Reply(text=_ask_back(now))
    if intent.name == "repeat" and now.last_said:
        return Reply(text=now.last_said)
    return _serve(intent, words, tools, agreed=intent is _offered(now.last_said)) or Reply(text=_ask_back(now))


def _offered(last_said: str) -> Intent | None:
    """What the question offers that was asked last, if it offers anything."""
    return next((BY_NAME[offer.intent] for offer in OFFERS if offer.question.search(last_said.lower())), None)


def _intent(words: str, last_said: str) -> Intent | None:
    offered = _offered(last_said)
    if offered is not None and offered.needs and time_in(words):
        return offered
    if offered is not None and DECLINE.search(words):
        return _DECLINED
    found = next((intent for intent in INTENTS if intent.matches(words)), None)
    if found is not None and found.name not in ("thanks", "wait"):
        return found
    if offered is not None and YES.search(words):
        return offered
    if NO.search(words):
        return _DECLINED
    if YES.search(words):
        return found or _AGREED
    return found


_DECLINED = Intent(name="declined", answer=f"All right. {ANYTHING_ELSE}")
_AGREED = Intent(name="agreed", answer="All right. What would you like to know?")


def _serve(intent: Intent, words: str, tools: Mapping[str, frozenset[str]], *, agreed: bool) -> Reply | None:
    """The call of the first tool that this agent has for the intent, else its answer; None if it has neither."""
    tool = next((name for name in intent.tools if name in tools), None)
    if tool is None:
        return Reply(text=intent.answer) if intent.answer else None
    if intent.confirm and tool == intent.tools[0] and not agreed:
        return Reply(text=intent.confirm)
    known = {
        "summary": f'The caller said: "{words}"',
        "topic": intent.topic,
        "when": time_in(words) or "",
    }
    if intent.needs in tools[tool] and not known.get(intent.needs):
        return Reply(text=intent.ask)
    return Reply(tool=tool, arguments={name: known[name] for name in sorted(tools[tool]) if known.get(name)})


def _report(result: llm.FunctionCallOutput) -> str:
    tool = result.name.removesuffix("_final")
    if "under way already" in result.output:
        return "One moment please, I am connecting you."
    if tool.startswith("to_"):
        return (
            f"I am sorry, I can not reach my colleagues in {tool.removeprefix('to_')} right now. "
            "Please try again in a few minutes. I am still here. What else can I do for you?"
        )
    if result.is_error:
        reason = "that did not work." if result.output == _INTERNAL else result.output.strip()
        return f"I am sorry. {reason[:1].upper()}{reason[1:]} {ANYTHING_ELSE}"
    return f"{result.output.strip()} {FOLLOW_UP.get(tool, '')}".strip()


def _ask_back(now: Moment) -> str:
    return ASK_BACK[1] if now.last_said.startswith(ASK_BACK[0][:30]) else ASK_BACK[0]


def _without_words(now: Moment) -> str:
    """Nobody asked anything: the reply follows from the instruction, as far as rules can follow one."""
    if "welcome them back" in now.instruction.lower():
        return WELCOME_BACK
    if now.notes or "in the middle of a call" in now.instruction.lower():
        return GO_ON
    return HOW_CAN_I_HELP
