"""ElevenLabs' text to speech: one WebSocket with a context for each utterance, and the HTTP stream.

An open context, and an HTTP request that is being answered, is a stream of the account. Characters are charged as they
come, before their audio is sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from aiohttp import WSMsgType, web

from coordination.errors import InvalidArgument
from coordination.testing.emulators.faults import Fault, FaultKind
from coordination.testing.emulators.judge import Quota, Refusal
from coordination.testing.emulators.server import Emulator, break_off
from coordination.testing.emulators.voice import bytes_per_second, encode, render, sample_rate
from coordination.testing.voices import Voice

PIECE = 0.25
"""Seconds of audio in one message."""


class ElevenLabsEmulator(Emulator):
    """`elevenlabs.TTS(base_url=emulator.base_url, api_key="any")`.

    Speaks a tone, or with `voice` the words. `model` and voice id are taken as they come.
    """

    path: ClassVar[str] = "/v1"

    def __init__(
        self,
        *,
        voice: Voice | None = None,
        quota: Quota | None = None,
        latency: timedelta = timedelta(0),
        pace: timedelta = timedelta(0),
        port: int = 0,
    ) -> None:
        super().__init__(quota=quota, latency=latency, pace=pace, port=port)
        self.voice = voice
        self.said: list[str] = []
        """Every text whose audio was asked for, in order."""

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/text-to-speech/{voice}/stream", self._whole),
            web.get("/v1/text-to-speech/{voice}/multi-stream-input", self._contexts),
            web.get("/v1/voices", self._voices),
        ]

    def _error_body(self, status: int, code: str, message: str) -> object:
        return {"detail": {"status": code, "message": message}}

    async def _voices(self, _: web.Request) -> web.Response:
        return web.json_response({"voices": []})

    def pieces(self, text: str, encoding: str) -> Iterator[tuple[bytes, float]]:
        """The audio of a text, in pieces of a message's length, and how long each lasts."""
        self.said.append(text.strip())
        # Encoded as a whole: an encoder that begins anew with each piece adds silence to it.
        audio = encode(render(text, sample_rate(encoding), self.voice), encoding)
        a_second = bytes_per_second(encoding)
        size = 2 * int(PIECE * a_second / 2)
        for begin in range(0, len(audio), size):
            part = audio[begin : begin + size]
            yield part, len(part) / a_second

    async def _whole(self, request: web.Request) -> web.StreamResponse:
        entered = self._enter(request)
        if isinstance(entered, web.Response):
            return entered
        key, fault, encoding = entered
        text = str((await request.json())["text"])
        admitted = self.judge.admit(key, {"requests": 1.0, "characters": float(len(text))}, stream=True)
        if isinstance(admitted, Refusal):
            return self._too_many(admitted)
        try:
            await self.pause(self.latency)
            kind = "audio/mpeg" if encoding.startswith("mp3") else "audio/pcm"
            if fault is not None and fault.kind is FaultKind.GARBAGE:
                return web.Response(text="<html>this is no audio</html>", content_type="text/html")
            response = web.StreamResponse(headers={"Content-Type": kind})
            await response.prepare(request)
            for number, (audio, _) in enumerate(self.pieces(text, encoding)):
                if fault is not None and number == fault.after:
                    break_off(request)
                    return response
                await response.write(audio)
                await self.pause(self.pace)
            return response
        finally:
            self.judge.close_stream()

    async def _contexts(self, request: web.Request) -> web.StreamResponse:
        entered = self._enter(request)
        if isinstance(entered, web.Response):
            return entered
        key, fault, encoding = entered
        socket = await self._socket(request)
        connection = _Connection(self, request, socket, key, encoding, fault)
        try:
            await connection.run()
        except ConnectionError:
            pass  # the client has gone in the middle of a message to it
        finally:
            await connection.end()
        return socket

    def _enter(self, request: web.Request) -> tuple[str, Fault | None, str] | web.Response:
        """API key, fault and format of a request, or the answer that ends it."""
        key = request.headers.get("xi-api-key", "")
        if not key:
            return self._error(401, "invalid_api_key", "Invalid API key.")
        fault = self._faults.take()
        if fault is not None and fault.kind is FaultKind.STATUS:
            return self._planned_error(fault)
        encoding = request.query.get("output_format", "mp3_44100_128")
        try:
            sample_rate(encoding)
        except InvalidArgument as wrong:
            return self._error(422, "unsupported_output_format", str(wrong))
        return key, fault, encoding

    def _too_many(self, refusal: Refusal) -> web.Response:
        return self._error(429, _code(refusal), _sentence(refusal), retry_after=refusal.retry_after)


def _code(refusal: Refusal) -> str:
    return "too_many_concurrent_requests" if refusal.unit == "streams" else "rate_limit_exceeded"


def _sentence(refusal: Refusal) -> str:
    return f"{_code(refusal)}: the account's limit of {refusal.unit} is reached."


@dataclass(slots=True)
class _Context:
    """One utterance: text that waits to be spoken, and where its audio has come to."""

    texts: asyncio.Queue[tuple[str, bool]] = field(default_factory=asyncio.Queue[tuple[str, bool]])
    """Text, and whether it is the last."""
    buffer: str = ""
    speaking: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Connection:
    """One WebSocket and the contexts in it; each speaks for itself, so a long one does not hold up the others."""

    emulator: ElevenLabsEmulator
    request: web.Request
    socket: web.WebSocketResponse
    key: str
    encoding: str
    fault: Fault | None
    contexts: dict[str, _Context] = field(default_factory=dict[str, _Context])
    refused: set[str] = field(default_factory=set[str])
    """Contexts that were told so: what else comes for them counts for nothing."""
    sent: int = 0

    async def run(self) -> None:
        async for message in self.socket:
            if message.type is WSMsgType.TEXT:
                await self._take(json.loads(message.data))

    async def end(self) -> None:
        """Frees what the contexts held, whether they were closed or the client went."""
        for name in list(self.contexts):
            task = self._drop(name)
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def _take(self, packet: dict[str, Any]) -> None:
        name = str(packet.get("context_id", "default"))
        if name in self.refused:
            return
        context = self.contexts.get(name)
        if packet.get("close_context"):
            if context is not None:
                context.texts.put_nowait((context.buffer, True))
            return
        if context is None:
            context = await self._open(name)
            if context is None:
                return
        text = str(packet.get("text", ""))
        if text.strip():
            counted = self.emulator.judge.admit(self.key, {"characters": float(len(text))})
            if isinstance(counted, Refusal):
                await self._refuse(name, counted)
                return
            context.buffer += text
        if packet.get("flush") and context.buffer:
            context.texts.put_nowait((context.buffer, False))
            context.buffer = ""

    async def _open(self, name: str) -> _Context | None:
        """A new context, unless the account has used up what it may; then the client is told."""
        admitted = self.emulator.judge.admit(self.key, {"requests": 1.0}, stream=True)
        if isinstance(admitted, Refusal):
            await self._refuse(name, admitted)
            return None
        context = self.contexts[name] = _Context()
        context.speaking = asyncio.create_task(self._speak(name, context), name=f"context {name}")
        return context

    async def _refuse(self, name: str, refusal: Refusal) -> None:
        self.refused.add(name)
        task = self._drop(name)
        if task is not None:
            task.cancel()
        error = {"error": _sentence(refusal), "message": _sentence(refusal), "code": 1008}
        await self.socket.send_json({**error, "contextId": name})

    def _drop(self, name: str) -> asyncio.Task[None] | None:
        context = self.contexts.pop(name, None)
        if context is None:
            return None
        self.emulator.judge.close_stream()
        return context.speaking

    async def _speak(self, name: str, context: _Context) -> None:
        """Sends the audio of a context, text by text, and says when it has ended."""
        try:
            await self.emulator.pause(self.emulator.latency)
            last = False
            while not last:
                text, last = await context.texts.get()
                for audio, seconds in self.emulator.pieces(text, self.encoding) if text.strip() else ():
                    if not await self._send(name, text, audio, seconds):
                        return
                    text = ""  # the letters go with the first piece of their audio
            self._drop(name)
            await self.socket.send_json({"isFinal": True, "contextId": name})
        except ConnectionError:
            return  # the client has gone
        finally:
            self._drop(name)

    async def _send(self, name: str, text: str, audio: bytes, seconds: float) -> bool:
        """One message with audio; false if a fault ended the connection instead."""
        if self.fault is not None and self.sent == self.fault.after:
            if self.fault.kind is FaultKind.GARBAGE:
                await self.socket.send_str("{]not json")
            break_off(self.request)
            return False
        message: dict[str, Any] = {"audio": base64.b64encode(audio).decode(), "contextId": name, "isFinal": None}
        alignment = _alignment(text, seconds)
        await self.socket.send_json({**message, "alignment": alignment, "normalizedAlignment": alignment})
        self.sent += 1
        await self.emulator.pause(self.emulator.pace)
        return True


def _alignment(text: str, seconds: float) -> dict[str, Any] | None:
    """When each letter is heard; an even spread over the piece."""
    if not text:
        return None
    step = seconds * 1000 / len(text)
    return {
        "chars": list(text),
        "charStartTimesMs": [int(number * step) for number in range(len(text))],
        "charDurationsMs": [int(step)] * len(text),
    }
