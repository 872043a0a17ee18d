"""Where a conversation stands: what the rules look at, read out of a chat context."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from livekit.agents import llm

_QUOTE = re.compile(r"^\[said by ([^\]]+)\] (.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a model is asked to react to."""

    caller: str = ""
    """The caller's words that wait for an answer; empty if nothing waits."""
    confidence: float = 1.0
    last_said: str = ""
    """What an agent said last, whoever it was."""
    result: llm.FunctionCallOutput | None = None
    """The result of a tool that nobody has reported yet."""
    instruction: str = ""
    """What the framework or an agent asks this one reply to be."""
    notes: str = ""
    """What another agent wrote down at a handoff."""


def moment(chat: llm.ChatContext) -> Moment:
    """Reads the end of `chat`: everything behind the last thing that an agent said."""
    items = chat.items
    last_agent = max((i for i, item in enumerate(items) if _is(item, "assistant")), default=-1)
    open_items = items[last_agent + 1 :]
    # Words that led to a tool call have had their reaction; what is said after it stands for itself.
    acted = max((i for i, item in enumerate(open_items) if isinstance(item, llm.FunctionCall)), default=-1)
    asked = [item for item in open_items[acted + 1 :] if isinstance(item, llm.ChatMessage) and item.role == "user"]
    instruction = _instruction(open_items)
    result = _result(items, open_items, instruction)
    if result is not None and asked and items.index(asked[-1]) > items.index(result):
        result = None
    said = items[last_agent] if last_agent >= 0 else None
    return Moment(
        caller=" ".join(_text(item) for item in asked).strip(),
        confidence=min(
            (item.transcript_confidence for item in asked if item.transcript_confidence is not None), default=1.0
        ),
        last_said=spoken(_text(said)) if isinstance(said, llm.ChatMessage) else "",
        result=result,
        instruction=instruction,
        notes=_notes(items),
    )


def spoken(text: str) -> str:
    """The words of a message of an agent, without the label that marks a quote."""
    match = _QUOTE.match(text)
    if match is None:
        return text
    try:
        words: object = json.loads(match.group(2))
    except ValueError:
        return match.group(2)
    return words if isinstance(words, str) else match.group(2)


def _is(item: llm.ChatItem, role: str) -> bool:
    return isinstance(item, llm.ChatMessage) and item.role == role and bool(item.text_content)


def _text(item: llm.ChatMessage) -> str:
    return (item.text_content or "").strip()


def _confidence(item: llm.ChatMessage) -> float:
    """Typed text comes without one and is what it says."""
    return 1.0 if item.transcript_confidence is None else item.transcript_confidence


def _instruction(open_items: list[llm.ChatItem]) -> str:
    """A system message at the very end: what `generate_reply(instructions=...)` adds."""
    last = open_items[-1] if open_items else None
    return _text(last) if isinstance(last, llm.ChatMessage) and last.role in ("system", "developer") else ""


def _result(
    items: list[llm.ChatItem], open_items: list[llm.ChatItem], instruction: str
) -> llm.FunctionCallOutput | None:
    """The newest result that waits to be told: one behind the last words, or one that the instruction names."""
    waiting = [item for item in open_items if isinstance(item, llm.FunctionCallOutput) and item.reply_required]
    if waiting:
        return waiting[-1]
    named = [item for item in items if isinstance(item, llm.FunctionCallOutput) and item.call_id in instruction]
    return named[-1] if named and instruction else None


def _notes(items: list[llm.ChatItem]) -> str:
    """The newest note that came with a handoff or a takeover."""
    notes = [_text(item) for item in items if _is(item, "system") and "in mid-conversation" in _text(item)]  # type: ignore[arg-type]
    return notes[-1] if notes else ""
