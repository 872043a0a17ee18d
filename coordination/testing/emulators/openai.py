"""OpenAI's chat completions: server-sent events, tool calls, usage in the last chunk, rate-limit headers.

Tokens are counted as four characters each. What a reply will cost is known when the request comes, so all of it is
charged then; a client that hangs up before the end pays for what it was sent.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

from aiohttp import web

from coordination.testing.emulators.faults import Fault, FaultKind
from coordination.testing.emulators.judge import Charge, Quota, Refusal, Unit
from coordination.testing.emulators.server import Emulator, break_off

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 3
_ENDED = (ConnectionError, RuntimeError)
"""What writing to a client that has gone raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedCall:
    """A tool that the model calls; `arguments` is JSON."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What the model says: text, tool calls, or both."""

    text: str = ""
    calls: Sequence[ScriptedCall] = field(default_factory=tuple[ScriptedCall, ...])


Reply = ChatReply | Callable[[dict[str, Any]], ChatReply]
"""A reply, or a function of the request's body that gives one."""

DEFAULT_REPLY = ChatReply(text="Yes, I can help you with that.")


def count_tokens(text: str) -> int:
    """As this emulator counts."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def prompt_tokens(body: dict[str, Any]) -> int:
    """Tokens of all messages and tool descriptions of a request."""
    messages: list[dict[str, Any]] = body.get("messages") or []
    said = sum(TOKENS_PER_MESSAGE + count_tokens(_text_of(message)) for message in messages)
    return said + (count_tokens(json.dumps(body["tools"])) if body.get("tools") else 0)


class OpenAIEmulator(Emulator):
    """`openai.LLM(base_url=emulator.base_url, api_key="any")`.

    `replies` are given in order; when they are used up, `default` answers.
    """

    path: ClassVar[str] = "/v1"

    def __init__(
        self,
        *,
        replies: Sequence[Reply] = (),
        default: Reply = DEFAULT_REPLY,
        quota: Quota | None = None,
        latency: timedelta = timedelta(0),
        pace: timedelta = timedelta(0),
        port: int = 0,
    ) -> None:
        super().__init__(quota=quota, latency=latency, pace=pace, port=port)
        self.replies: deque[Reply] = deque(replies)
        self.default = default
        self.bodies: list[dict[str, Any]] = []
        """Every request that was served, as it came."""

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self._complete),
            web.get("/v1/models", self._models),
        ]

    def _error_body(self, status: int, code: str, message: str) -> object:
        return {"error": {"message": message, "type": code, "param": None, "code": code}}

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("Authorization", "").removeprefix("Bearer").strip()
        if not key:
            return self._error(401, "invalid_api_key", "You didn't provide an API key.")
        fault = self._faults.take()
        if fault is not None and fault.kind is FaultKind.STATUS:
            return self._planned_error(fault)
        body: dict[str, Any] = await request.json()
        answer = _Answer(body, self._reply(body))
        charge = self.judge.admit(key, {"requests": 1.0, "tokens": float(answer.tokens)})
        if isinstance(charge, Refusal):
            self._put_back(answer.reply)
            text = f"Rate limit reached for {body.get('model')} on {charge.unit} per window."
            headers = self._rate_headers()
            return self._error(429, "rate_limit_exceeded", text, retry_after=charge.retry_after, **headers)
        self.bodies.append(body)
        await self.pause(self.latency)
        if not body.get("stream"):
            return web.json_response(answer.whole(), headers=self._rate_headers())
        return await self._stream(request, answer, charge, fault)

    def _reply(self, body: dict[str, Any]) -> ChatReply:
        reply = self.replies.popleft() if self.replies else self.default
        return reply(body) if callable(reply) else reply

    def _put_back(self, reply: ChatReply) -> None:
        """A request that was refused has not used up its reply."""
        self.replies.appendleft(reply)

    async def _stream(
        self, request: web.Request, answer: _Answer, charge: Charge, fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **self._rate_headers()})
        sent = 0
        try:
            await response.prepare(request)
            for number, (chunk, tokens) in enumerate(answer.chunks()):
                if fault is not None and number == fault.after:
                    charge.amend("tokens", float(answer.prompt + sent))
                    if fault.kind is FaultKind.GARBAGE:
                        await response.write(b"data: {]not json\n\n")
                    break_off(request)
                    return response
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                sent += tokens
                await self.pause(self.pace)
            await response.write(b"data: [DONE]\n\n")
        except _ENDED:
            charge.amend("tokens", float(answer.prompt + sent))
        return response

    def _rate_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        units: tuple[Unit, ...] = ("requests", "tokens")
        for unit in units:
            promised, remaining = getattr(self.judge.quota, unit), self.judge.remaining(unit)
            if promised is not None and remaining is not None:
                headers[f"x-ratelimit-limit-{unit}"] = str(int(promised))
                headers[f"x-ratelimit-remaining-{unit}"] = str(int(remaining))
                headers[f"x-ratelimit-reset-{unit}"] = f"{self.judge.resets_in(unit).total_seconds():.3f}s"
        return headers


class _Answer:
    """One answer, whole or in pieces, and what it costs."""

    def __init__(self, body: dict[str, Any], reply: ChatReply) -> None:
        self.reply = reply
        self.prompt = prompt_tokens(body)
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": body.get("model", "")}
        options: dict[str, Any] = body.get("stream_options") or {}
        self._wants_usage = bool(options.get("include_usage"))
        self._words = _pieces(reply.text)
        self._calls = [
            {
                "index": index,
                "id": f"call_{uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(reply.calls)
        ]
        self.completion = sum(map(count_tokens, self._words)) + sum(map(_call_tokens, reply.calls))

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": self.tokens}

    def chunks(self) -> list[tuple[dict[str, Any], int]]:
        """The pieces of the stream, each with the tokens that it carries."""
        pieces = [self._chunk({"role": "assistant", "content": ""}), *map(self._word, self._words)]
        for call, scripted in zip(self._calls, self.reply.calls, strict=True):
            pieces.append(self._chunk({"tool_calls": [call]}, tokens=_call_tokens(scripted)))
        pieces.append(self._chunk({}, finish="tool_calls" if self._calls else "stop"))
        if self._wants_usage:
            pieces.append(({**self._head, "object": _CHUNK, "choices": [], "usage": self.usage}, 0))
        return pieces

    def whole(self) -> dict[str, Any]:
        """The answer to a request that did not ask for a stream."""
        message: dict[str, Any] = {"role": "assistant", "content": self.reply.text or None}
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if self._calls else "stop"}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    def _word(self, text: str) -> tuple[dict[str, Any], int]:
        return self._chunk({"content": text}, tokens=count_tokens(text))

    def _chunk(
        self, delta: dict[str, Any], *, tokens: int = 0, finish: str | None = None
    ) -> tuple[dict[str, Any], int]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**self._head, "object": _CHUNK, "choices": [choice], "usage": None}, tokens


_CHUNK = "chat.completion.chunk"


def _pieces(text: str) -> list[str]:
    """Words with the space before them, as tokens come."""
    words = text.split(" ")
    return [word if number == 0 else f" {word}" for number, word in enumerate(words)] if text else []


def _call_tokens(call: ScriptedCall) -> int:
    return count_tokens(call.name + call.arguments)


def _text_of(message: dict[str, Any]) -> str:
    content: str | list[dict[str, Any]] = message.get("content") or ""
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content)
    calls = message.get("tool_calls")
    return f"{content}{json.dumps(calls) if calls else ''}"
