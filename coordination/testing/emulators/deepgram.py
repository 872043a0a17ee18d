"""Deepgram's live transcription over a WebSocket, and its answer to a whole recording.

What was said is scripted: by the order of the utterances, or by a function of their length. Where an utterance begins
and ends is heard, by loudness.
"""

from __future__ import annotations

import io
import json
import time
import wave
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

from aiohttp import WSCloseCode, WSMsgType, web

from coordination.testing.emulators.faults import Fault, FaultKind
from coordination.testing.emulators.judge import Charge, Judge, Quota, Refusal
from coordination.testing.emulators.server import Emulator, break_off

Transcribe = Callable[[int, timedelta], str]
"""From the number of the utterance, counted from 0 over all streams, and its length to what was said."""

LOUD = 400
"""Mean amplitude of 16-bit samples from which sound is speech."""
HUSH = timedelta(milliseconds=300)
"""Silence that ends an utterance. Deepgram's own default would end it between two words."""
SECONDS_PER_WORD = 0.4
_GRAIN = 0.25
"""Seconds of audio that share one entry of the judge's log."""
_WORDS = ("well", "I", "would", "like", "to", "ask", "about", "my", "last", "invoice", "please")


def by_duration(_: int, duration: timedelta) -> str:
    """As many words as fit into the time."""
    count = max(1, round(duration.total_seconds() / SECONDS_PER_WORD))
    return " ".join(_WORDS[number % len(_WORDS)] for number in range(count))


class DeepgramEmulator(Emulator):
    """`deepgram.STT(base_url=emulator.base_url, api_key="any")`.

    `transcripts` are given in the order in which utterances end, whatever stream they are in; when they are used up,
    `transcribe` decides.
    """

    path: ClassVar[str] = "/v1/listen"

    def __init__(
        self,
        *,
        transcripts: Sequence[str] = (),
        transcribe: Transcribe = by_duration,
        quota: Quota | None = None,
        latency: timedelta = timedelta(0),
        port: int = 0,
    ) -> None:
        super().__init__(quota=quota, latency=latency, port=port)
        self._transcripts, self._transcribe = list(transcripts), transcribe
        self._utterances = 0

    def _routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/listen", self._listen), web.post("/v1/listen", self._recording)]

    def _error_body(self, status: int, code: str, message: str) -> object:
        return {"err_code": code.upper(), "err_msg": message, "request_id": str(uuid4())}

    def words_of(self, duration: timedelta) -> str:
        """The transcript of the utterance that ended now."""
        number = self._utterances
        self._utterances += 1
        return self._transcripts[number] if number < len(self._transcripts) else self._transcribe(number, duration)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        entered = self._enter(request)
        if isinstance(entered, web.Response):
            return entered
        key, fault = entered
        admitted = self.judge.admit(key, {"requests": 1.0}, stream=True)
        if isinstance(admitted, Refusal):
            return self._too_many(admitted)
        try:
            socket = await self._socket(request)
            await _Stream(self, request, socket, _Meter(self.judge, key), fault).run()
            return socket
        finally:
            self.judge.close_stream()

    async def _recording(self, request: web.Request) -> web.StreamResponse:
        entered = self._enter(request)
        if isinstance(entered, web.Response):
            return entered
        with wave.open(io.BytesIO(await request.read())) as recording:
            duration = recording.getnframes() / recording.getframerate()
        admitted = self.judge.admit(entered[0], {"requests": 1.0, "audio_seconds": duration})
        if isinstance(admitted, Refusal):
            return self._too_many(admitted)
        await self.pause(self.latency)
        text = self.words_of(timedelta(seconds=duration))
        metadata = {"request_id": str(uuid4()), "duration": duration, "channels": 1}
        channels = [{"alternatives": [_alternative(text, 0.0, duration)]}]
        return web.json_response({"metadata": metadata, "results": {"channels": channels}})

    def _enter(self, request: web.Request) -> tuple[str, Fault | None] | web.Response:
        """The API key and the fault of a request, or the answer that ends it."""
        key = request.headers.get("Authorization", "").removeprefix("Token").strip()
        if not key:
            return self._error(401, "invalid_auth", "Invalid credentials.")
        fault = self._faults.take()
        if fault is not None and fault.kind is FaultKind.STATUS:
            return self._planned_error(fault)
        return key, fault

    def _too_many(self, refusal: Refusal) -> web.Response:
        text = f"Too many requests: the project's limit of {refusal.unit} is reached."
        return self._error(429, "too_many_requests", text, retry_after=refusal.retry_after)


@dataclass(slots=True)
class _Meter:
    """Charges audio as it arrives."""

    judge: Judge
    key: str
    _entry: Charge | None = None

    def count(self, seconds: float) -> bool:
        """Whether the quota covers it."""
        entry = self._entry
        if entry is not None and self.judge.clock() - entry.at < _GRAIN:
            entry.amend("audio_seconds", entry.amounts["audio_seconds"] + seconds)
            return True
        admitted = self.judge.admit(self.key, {"audio_seconds": seconds})
        self._entry = admitted if isinstance(admitted, Charge) else None
        return isinstance(admitted, Charge)


@dataclass(slots=True)
class _Utterance:
    """Where speech began and when it was last heard, in seconds of the stream."""

    begin: float
    heard: float


@dataclass(slots=True)
class _Stream:
    """One live transcription."""

    emulator: DeepgramEmulator
    request: web.Request
    socket: web.WebSocketResponse
    meter: _Meter
    fault: Fault | None
    position: float = 0.0
    sent: int = 0
    utterance: _Utterance | None = None
    request_id: str = field(default_factory=lambda: str(uuid4()))

    async def run(self) -> None:
        try:
            async for message in self.socket:
                if message.type is WSMsgType.BINARY:
                    if not await self._hear(message.data):
                        return
                elif message.type is WSMsgType.TEXT and not await self._obey(json.loads(message.data)):
                    return
        except ConnectionError:
            return  # the client has gone in the middle of a message to it

    async def _hear(self, audio: bytes) -> bool:
        """Takes a piece of audio; false if the stream has ended over it."""
        samples = array("h", audio)
        duration = len(samples) / int(self.request.query.get("sample_rate", "16000"))
        if not self.meter.count(duration):
            await self.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"audio limit reached")
            return False
        self.position += duration
        if samples and sum(map(abs, samples)) / len(samples) >= LOUD:
            if self.utterance is None:
                self.utterance = _Utterance(self.position - duration, self.position)
                channel: dict[str, Any] = {"type": "SpeechStarted", "channel": [0], "timestamp": self.utterance.begin}
                await self.socket.send_json(channel)
            self.utterance.heard = self.position
        elif self.utterance is not None and self.position - self.utterance.heard >= HUSH.total_seconds():
            return await self._finish(from_finalize=False)
        return True

    async def _obey(self, command: dict[str, Any]) -> bool:
        """`Finalize` ends the utterance, `CloseStream` the stream, `KeepAlive` nothing."""
        kind = command.get("type")
        ends = kind in ("Finalize", "CloseStream") and self.utterance is not None
        if ends and not await self._finish(from_finalize=kind == "Finalize"):
            return False
        if kind != "CloseStream":
            return True
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        metadata: dict[str, Any] = {"type": "Metadata", "request_id": self.request_id, "created": created}
        await self.socket.send_json({**metadata, "duration": self.position, "channels": 1})
        await self.socket.close()
        return False

    async def _finish(self, *, from_finalize: bool) -> bool:
        """Sends the transcript of the utterance; false if a fault ended the stream instead."""
        assert self.utterance is not None
        begin, end = self.utterance.begin, self.utterance.heard
        self.utterance = None
        text = self.emulator.words_of(timedelta(seconds=end - begin))
        await self.emulator.pause(self.emulator.latency)
        wanted = (False, True) if self.request.query.get("interim_results") == "true" else (True,)
        for final in wanted:
            if self.fault is not None and self.sent == self.fault.after:
                if self.fault.kind is FaultKind.GARBAGE:
                    await self.socket.send_str("{]not json")
                break_off(self.request)
                return False
            await self.socket.send_json(self._results(text, begin, end, final=final, from_finalize=from_finalize))
            self.sent += 1
        return True

    def _results(self, text: str, begin: float, end: float, *, final: bool, from_finalize: bool) -> dict[str, Any]:
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": begin,
            "duration": end - begin,
            "is_final": final,
            "speech_final": final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [_alternative(text, begin, end)]},
            "metadata": {"request_id": self.request_id, "model_uuid": self.request_id},
        }


def _alternative(text: str, begin: float, end: float) -> dict[str, Any]:
    words = text.split()
    step = (end - begin) / max(1, len(words))
    return {
        "transcript": text,
        "confidence": 0.99,
        "words": [
            {
                "word": word.lower().strip(".,?!"),
                "punctuated_word": word,
                "start": round(begin + number * step, 3),
                "end": round(begin + (number + 1) * step, 3),
                "confidence": 0.99,
            }
            for number, word in enumerate(words)
        ],
    }
