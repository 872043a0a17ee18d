"""Events leave the room: to a log, to a webhook that is away for a moment, to a program's own sink."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from coordination.coordinator import Coordinator, Room
from coordination.room import sinks
from coordination.room.events import Event
from coordination.room.sinks import LogSink, Sink, WebhookSink, forward

SOON = 8.0


@asynccontextmanager
async def forwarding(room: Room, sink: Sink, *, since: str | None = None) -> AsyncIterator[None]:
    task = asyncio.create_task(forward(room.events, sink, since=since))
    try:
        yield
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), f"forwarding ended by itself: {ended!r}"


async def eventually(holds: Any, description: str) -> None:
    try:
        async with asyncio.timeout(SOON):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {SOON:g} s: {description}") from None


class Kept:
    """A program's own sink."""

    def __init__(self, *, fails: int = 0) -> None:
        self.fails = fails
        self.events: list[Event] = []

    async def deliver(self, event: Event) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("away")
        self.events.append(event)


async def test_a_sink_gets_each_event_once_in_order_also_those_of_other_processes(
    coordinator: Coordinator, other: Coordinator
) -> None:
    room, sink = coordinator.room("call"), Kept(fails=2)
    async with forwarding(room, sink):
        async with other.room("call").floor.hold("a"):
            await other.room("call").events.publish("invoice-paid", agent="a", reason="by card")
        await eventually(lambda: len(sink.events) == 3, "all three are there")

    assert [event.kind for event in sink.events] == ["grant", "invoice-paid", "release"]
    assert sink.events[0].agent == "a"


async def test_forwarding_goes_on_behind_the_event_that_was_last(coordinator: Coordinator) -> None:
    room = coordinator.room("call")
    for kind in ("one", "two"):
        await room.events.publish(kind)
    first = (await room.events.read())[0]
    sink = Kept()
    async with forwarding(room, sink, since=first.id):
        await eventually(lambda: sink.events, "the second one")

    assert [event.kind for event in sink.events] == ["two"]


async def test_an_event_that_is_refused_to_the_end_does_not_hold_up_the_next(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sinks, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(sinks, "LONGEST_PAUSE", 0.002)
    room, sink = coordinator.room("call"), Kept(fails=sinks.ATTEMPTS)
    await room.events.publish("bad")
    await room.events.publish("good")
    async with forwarding(room, sink):
        await eventually(lambda: sink.events, "the next one")

    assert [event.kind for event in sink.events] == ["good"]
    assert "bad" in caplog.text


async def test_the_log_has_a_line_per_event_with_its_fence(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    room = coordinator.room("call")
    with caplog.at_level(logging.INFO, logger="coordination.events"):
        async with forwarding(room, LogSink()):
            async with room.floor.hold("a") as lease:
                pass
            await eventually(lambda: len(caplog.records) >= 2, "two lines")

    told = [record.__dict__["baton"] for record in caplog.records if record.name == "coordination.events"]
    assert [(each["kind"], each["fence"]) for each in told] == [("grant", lease.fence), ("release", lease.fence)]


class Hook(ThreadingHTTPServer):
    """Answers 503 to the first request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.refusals = 1
        self.taken: list[tuple[str | None, str | None, dict[str, Any]]] = []


class _Take(BaseHTTPRequestHandler):
    server: Hook  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refuse = self.server.refusals > 0
        self.server.refusals -= refuse
        if not refuse:
            self.server.taken.append((self.headers["Authorization"], self.headers["Idempotency-Key"], body))
        self.send_response(503 if refuse else 204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the tests' output."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


async def test_a_webhook_that_was_away_for_a_moment_gets_everything_in_order(
    coordinator: Coordinator, hook: Hook
) -> None:
    room = coordinator.room("call")
    sink = WebhookSink(
        url=f"http://127.0.0.1:{hook.server_address[1]}/events",
        about={"room": "call"},
        headers={"Authorization": "Bearer t"},
    )
    async with forwarding(room, sink):
        async with room.floor.hold("a"):
            pass
        await eventually(lambda: len(hook.taken) == 2, "both events")

    kept = await room.events.read()
    assert [(auth, key) for auth, key, _ in hook.taken] == [("Bearer t", event.id) for event in kept]
    assert [(body["room"], body["kind"], body["agent"]) for _, _, body in hook.taken] == [
        ("call", "grant", "a"),
        ("call", "release", "a"),
    ]
    assert "Bearer" not in repr(sink)
