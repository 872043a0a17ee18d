"""Sending and hearing typed messages in one room.

A handler runs in a task of its own: one that fails or hangs holds up no other message and no other handler. Messages of
one sender reach one handler in the order in which they were sent, unless one of them was large enough to be a stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from livekit import rtc
from livekit.rtc.data_stream import ByteStreamReader

from coordination.errors import CoordinationError, InvalidArgument
from coordination.livekit.messages.message import (
    MAX_LOSSY,
    MAX_PACKET,
    MAX_STREAM,
    Message,
    MessageT,
    MessageTooLarge,
    Received,
    Refusal,
    Sender,
    Senders,
    admits,
    decode,
)
from coordination.livekit.room_events import on_room

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 1000
"""Messages that wait for one handler. A sender that is faster than the handler loses the newest, and it is counted."""

Handler = Callable[[Received[Any]], Awaitable[None] | None]


class MessageNotSent(CoordinationError):
    """LiveKit did not take the message; the room is not connected, or this participant may not publish data."""

    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStatistics:
    """What became of the messages that arrived for the types that are handled here."""

    handled: int
    failed: int
    """Handlers that raised."""
    dropped: int
    """Too many waited already."""
    refused: dict[Refusal, int]


class Messages:
    """The typed messages of one connected room. Close it with the session, or use it in `async with`."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._ears: dict[str, list[_Ear]] = {}
        self._streams: set[asyncio.Task[None]] = set()
        self._handled = self._failed = self._dropped = 0
        self._refused: dict[Refusal, int] = dict.fromkeys(Refusal, 0)
        self._end = on_room(room, "data_received", self._on_data)

    async def __aenter__(self) -> Messages:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def statistics(self) -> MessageStatistics:
        return MessageStatistics(
            handled=self._handled, failed=self._failed, dropped=self._dropped, refused=dict(self._refused)
        )

    async def close(self) -> None:
        """Hears nothing any more; handlers that run are cancelled. Closing twice does no harm."""
        self._end()
        tasks = [*self._streams]
        for topic, ears in self._ears.items():
            self._room.unregister_byte_stream_handler(topic)
            tasks += [ear.task for ear in ears]
        self._ears.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- sending ----------------------------------------------------------------------------------

    async def send(self, message: Message, *, to: Iterable[str] = (), reliable: bool = True) -> None:
        """Sends to everybody, or to the named identities. Returns when LiveKit has taken it.

        Reliable messages arrive, in order, at those who are connected; beyond 15 KiB they go as a stream. A lossy one
        arrives at once or never, and has to fit into one datagram. Raises `MessageTooLarge`, `MessageNotSent`.
        """
        data, topic = message.encode(), message.topic
        receivers = list(to)
        if isinstance(to, str):
            raise InvalidArgument(f"to={to!r} is one text: give a list of identities.")
        if not reliable and len(data) > MAX_LOSSY:
            raise MessageTooLarge(topic, len(data), MAX_LOSSY, "Send it reliably, or send less.")
        if len(data) > MAX_STREAM:
            raise MessageTooLarge(topic, len(data), MAX_STREAM, "Save it in the backend and send where it is.")
        try:
            if len(data) <= MAX_PACKET:
                await self._room.local_participant.publish_data(
                    data, reliable=reliable, destination_identities=receivers, topic=topic
                )
            else:
                await self._stream(data, topic, receivers)
        except rtc.participant.PublishDataError as refusal:
            raise MessageNotSent(f"A message on {topic!r} was not sent: {refusal.message}.") from refusal
        except rtc.StreamError as refusal:
            raise MessageNotSent(f"A message on {topic!r} was not sent as a stream: {refusal}.") from refusal

    async def _stream(self, data: bytes, topic: str, receivers: list[str]) -> None:
        writer = await self._room.local_participant.stream_bytes(
            "message",
            total_size=len(data),
            mime_type="application/json",
            destination_identities=receivers or None,
            topic=topic,
        )
        await writer.write(data)
        await writer.aclose()

    # -- hearing ----------------------------------------------------------------------------------

    def handle(
        self,
        model: type[MessageT],
        handler: Callable[[Received[MessageT]], Awaitable[None] | None],
        *,
        sender: Senders = Sender.ANYBODY,
    ) -> None:
        """Calls `handler` for each message of this type that such a `sender` sends.

        Several handlers of one type each get every message. Raises `InvalidArgument` for two types on one topic.
        """
        ears = self._ears.setdefault(model.topic, [])
        if any(ear.model is not model for ear in ears):
            raise InvalidArgument(
                f"The topic {model.topic!r} belongs to {ears[0].model.__name__}: give {model.__name__} its own."
            )
        if not ears:
            self._room.register_byte_stream_handler(model.topic, self._on_stream)
        ears.append(_Ear(model, handler, sender, self._count))

    def _on_data(self, packet: rtc.DataPacket) -> None:
        self._hear(packet.topic or "", packet.data, packet.participant)

    def _on_stream(self, reader: ByteStreamReader, identity: str) -> None:
        task = asyncio.create_task(self._read(reader, identity), name="baton: read a message's stream")
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    async def _read(self, reader: ByteStreamReader, identity: str) -> None:
        data = bytearray()
        sender = self._room.remote_participants.get(identity)
        try:
            async for piece in reader:
                data += piece
                if len(data) > MAX_STREAM:
                    self._refuse(Refusal.UNREADABLE)
                    return
        except rtc.StreamError as broken:
            logger.warning("a message's stream broke off: %s", broken)
            return
        self._hear(reader.info.topic, bytes(data), sender)

    def _hear(self, topic: str, data: bytes, sender: rtc.RemoteParticipant | None) -> None:
        ears = self._ears.get(topic, ())
        verdict: Message | Refusal | None = None
        for ear in ears:
            if not admits(ear.sender, sender):
                self._refuse(Refusal.SENDER)
                continue
            verdict = decode(ear.model, data) if verdict is None else verdict
            if isinstance(verdict, Refusal):
                self._refuse(verdict)
                return
            if not ear.put(Received(message=verdict, sender=sender)):
                self._dropped += 1

    def _refuse(self, reason: Refusal) -> None:
        # One warning per reason: whoever floods a topic shall not flood the log.
        level = logging.DEBUG if self._refused[reason] else logging.WARNING
        self._refused[reason] += 1
        logger.log(level, "a message was ignored: %s", reason)

    def _count(self, *, failed: bool) -> None:
        self._handled += 1
        self._failed += failed


class _Ear:
    """One handler, with the messages that wait for it."""

    def __init__(self, model: type[Message], handler: Handler, sender: Senders, count: Callable[..., None]) -> None:
        self.model, self.sender = model, sender
        self._handler, self._count = handler, count
        self._waiting: asyncio.Queue[Received[Any]] = asyncio.Queue(MAX_WAITING)
        self.task = asyncio.create_task(self._work(), name=f"baton: handle {model.topic}")

    def put(self, received: Received[Any]) -> bool:
        try:
            self._waiting.put_nowait(received)
        except asyncio.QueueFull:
            return False
        return True

    async def _work(self) -> None:
        while True:
            received = await self._waiting.get()
            failed = False
            try:
                result = self._handler(received)
                if result is not None:
                    await result
            except Exception:
                failed = True
                logger.exception("a handler failed", extra={"topic": self.model.topic})
            self._count(failed=failed)
