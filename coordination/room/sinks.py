"""Where a room's events go besides Redis: a log, a webhook, whatever else implements `Sink`.

`forward` follows the events of a room and gives each to one sink, in order, at least once: after a restart it goes on
behind the event id that it is given, and what was delivered but not yet noted comes again, under the same id.
"""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

from tenacity import AsyncRetrying, RetryError, stop_after_attempt, wait_exponential

from coordination.room.events import Event, Events

logger = logging.getLogger("coordination.room")

ATTEMPTS: Final = 6
"""How often one event is tried; with the pauses in between that is some six seconds."""
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0


class Sink(Protocol):
    """Takes events. An exception means that the event was not taken: it is given again, a bounded number of times."""

    async def deliver(self, event: Event) -> None: ...


async def forward(events: Events, sink: Sink, *, since: str | None = None) -> None:
    """Gives the events of a room to a sink: those behind `since`, or all that are kept, and then as they happen.

    Runs until it is cancelled. An event that the sink refuses to the end is logged and left out: one that cannot be
    delivered does not hold up all later ones.
    """
    async for event in events.follow(since=since):
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(ATTEMPTS), wait=wait_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)
            ):
                with attempt:
                    await sink.deliver(event)
        except RetryError as failure:
            fault = failure.last_attempt.exception()
            logger.error("an event (%s, %s) was not delivered to %s: %s", event.kind, event.id, sink, fault)


@dataclass(frozen=True, slots=True)
class LogSink:
    """Writes one line per event; agent, role and fence are in the record's `extra`."""

    log: logging.Logger = field(default_factory=lambda: logging.getLogger("coordination.events"))
    level: int = logging.INFO

    async def deliver(self, event: Event) -> None:
        self.log.log(self.level, "%s %s", event.kind, event.reason, extra={"baton": as_json(event)})


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSink:
    """Posts each event as JSON. Any answer but 2xx, and none within `timeout`, is a failure.

    The body holds the fields of `Event` and those of `about` (which room it is, say). `headers` are for credentials;
    `Idempotency-Key` is the event's id.
    """

    url: str
    about: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    timeout: timedelta = timedelta(seconds=5)

    async def deliver(self, event: Event) -> None:
        await asyncio.to_thread(self._post, event)

    def _post(self, event: Event) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": event.id, **self.headers}
        body = json.dumps({**self.about, **as_json(event)}).encode()
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=self.timeout.total_seconds()) as answer:
            answer.read()


def as_json(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "kind": event.kind,
        "agent": event.agent,
        "role": event.role,
        "fence": event.fence,
        "reason": event.reason,
        "at": event.at.isoformat(),
    }
