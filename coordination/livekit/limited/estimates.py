"""What a request will probably cost, before it is sent; what it did cost corrects the difference."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from livekit.agents import llm

_PER_MESSAGE = 3
"""Tokens that frame a message, in the chat formats of the known models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEstimate:
    """Tokens of a chat request. Too low is paid back as debt, too high keeps others waiting until it is settled."""

    completion: int = 150
    """Tokens of an answer: two or three spoken sentences."""
    characters_per_token: float = 4.0
    """Of English text. Lower it for languages whose words are cut into more tokens."""

    def tokens(self, text: str) -> int:
        return math.ceil(len(text) / self.characters_per_token)

    def prompt(self, chat: llm.ChatContext, tools: Sequence[llm.Tool]) -> int:
        """Of everything that is sent: messages, tool calls and their results, descriptions of tools."""
        total = self.tokens(_descriptions(tools)) if tools else 0
        for item in chat.items:
            if item.type == "message":
                total += _PER_MESSAGE + self.tokens(item.text_content or "")
            elif item.type == "function_call":
                total += _PER_MESSAGE + self.tokens(item.name + item.arguments)
            elif item.type == "function_call_output":
                total += _PER_MESSAGE + self.tokens(item.output)
        return total

    def received(self, chunk: llm.ChatChunk) -> int:
        """Of one piece of an answer."""
        if chunk.delta is None:
            return 0
        called = sum(self.tokens(call.name + call.arguments) for call in chunk.delta.tool_calls)
        return called + self.tokens(chunk.delta.content or "")


def _descriptions(tools: Sequence[llm.Tool]) -> str:
    return json.dumps(llm.ToolContext(list(tools)).parse_function_tools("openai", strict=False), default=str)
