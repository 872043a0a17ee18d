"""Whose budget a provider's requests come from, and how long they may wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

from livekit.agents import APIConnectOptions, APIError

from coordination.errors import CoordinationError, LimitError
from coordination.limits.limits import Limits
from coordination.limits.reservation import Reservation
from coordination.limits.units import Unit
from coordination.livekit.limited.feedback import QuotaNews, news_of_error

logger = logging.getLogger(__name__)

P = TypeVar("P")

UNSAID = timedelta(seconds=1)
"""How long to stay away from a provider that refuses and does not say how long."""


class ProviderBusy(APIError):
    """The limit gave the request no room in time, or never will; `__cause__` says which limit, and when it would.

    Not repeated by the framework's own retries, which would add up waits; a `FallbackAdapter` goes on to the next.
    """

    def __init__(self, provider: str, error: CoordinationError) -> None:
        self.provider = provider
        super().__init__(str(error), retryable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What happens while a request waits for its turn."""

    timeout: timedelta = timedelta(seconds=10)
    """How long it waits at most; then it fails with `ProviderBusy`."""
    filler_after: timedelta = timedelta(milliseconds=800)
    """When a filler is said, if the wrapper has one: a pause that callers take for thinking; longer ones they ask
    about."""
    fallback_after: timedelta = timedelta(seconds=1.5)
    """When the fallback takes over, if the wrapper has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Where reservations are made, and for whom.

    `limits` is `coordinator.limits`; `provider` the name under which it is configured. The rest says whose use is
    counted: what is left empty is not counted by.
    """

    limits: Limits
    provider: str
    tenant: str
    model: str = ""
    room: str = ""
    role: str = ""
    caller: str = ""
    priority: int = 0
    """Larger goes first: a caller on the line before work in the background."""
    transfer: bool = False
    """For an agent that came by a handoff or as a replacement: its streams may use what is kept for those."""
    on_news: Callable[[QuotaNews], None] | None = None
    """Told as well what the provider's answers say about its quota, for instance to show it."""
    _telling: set[asyncio.Task[None]] = field(
        default_factory=set[asyncio.Task[None]], init=False, repr=False, compare=False
    )

    async def reserve(self, costs: Mapping[Unit, float], *, timeout: timedelta) -> Reservation:
        """Waits for the reservation; close it. Raises `ProviderBusy` if it is not admitted within `timeout`, or never
        could be. Cancelled, it leaves no charge.
        """
        try:
            return await self.limits.reserve(
                self.provider,
                tenant=self.tenant,
                model=self.model or None,
                room=self.room or None,
                role=self.role or None,
                caller=self.caller or None,
                priority=self.priority,
                timeout=timeout,
                transfer=self.transfer,
                requests=costs.get(Unit.REQUESTS),
                tokens=costs.get(Unit.TOKENS),
                characters=costs.get(Unit.CHARACTERS),
                audio_seconds=costs.get(Unit.AUDIO_SECONDS),
                streams=1 if Unit.STREAMS in costs else None,
            )
        except LimitError as refused:
            raise ProviderBusy(self.provider, refused) from refused

    def tell(self, news: QuotaNews) -> None:
        """Corrects the buckets that all workers share by what the provider said.

        Done beside the request, which is not held up by it.
        """
        if self.on_news is not None:
            self.on_news(news)
        task = asyncio.create_task(self._correct(news), name="baton-provider-feedback")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _correct(self, news: QuotaNews) -> None:
        used_up = tuple(unit for unit, left in news.remaining.items() if left == 0)
        try:
            await self.limits.feedback(
                self.provider,
                model=self.model or None,
                retry_after=(news.retry_after or UNSAID) if news.limited else None,
                remaining=news.remaining,
                units=used_up,
            )
        except CoordinationError as fault:
            logger.warning("what %s said about its quota was not passed on: %s", self.provider, fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Generic[P]):
    """A request's turn: who serves it, and what was reserved; nothing for a fallback, which has limits of its own."""

    provider: P
    reservation: Reservation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line(Generic[P]):
    """Where the requests of one wrapper wait: for the wrapped provider, or until its fallback takes over."""

    wrapped: P
    budget: Budget
    waiting: Waiting
    fallback: P | None = None
    _news: list[QuotaNews] = field(default_factory=list[QuotaNews], init=False, repr=False, compare=False)

    async def turn(
        self,
        held: AsyncExitStack,
        costs: Mapping[Unit, float],
        *,
        while_waiting: Callable[[], None] | None = None,
    ) -> Turn[P]:
        """Waits for a request, a stream, and what else it costs; `held` gives it back.

        Calls `while_waiting` once the wait has lasted as long as a caller bears. Raises `ProviderBusy` where there is
        no fallback.
        """
        # Last of all that `held` does: what is given back must not open again what the provider has closed.
        held.callback(self._pass_on)
        waiting = self.waiting
        timeout = waiting.timeout if self.fallback is None else min(waiting.fallback_after, waiting.timeout)
        timer: asyncio.TimerHandle | None = None
        if while_waiting is not None:
            timer = asyncio.get_running_loop().call_later(waiting.filler_after.total_seconds(), while_waiting)
        try:
            reservation = await self.budget.reserve({Unit.REQUESTS: 1, Unit.STREAMS: 1, **costs}, timeout=timeout)
        except ProviderBusy:
            if self.fallback is None:
                raise
            return Turn(provider=self.fallback, reservation=None)
        finally:
            if timer is not None:
                timer.cancel()
        held.push_async_callback(reservation.close)
        return Turn(provider=self.wrapped, reservation=reservation)

    def note_error(self, event: object) -> None:
        """Handler of a provider's `error` event: reads what it says about the quota, while it can still be read."""
        error = getattr(event, "error", None)
        if isinstance(error, Exception):
            self.note(news_of_error(error))

    def note(self, news: QuotaNews | None) -> None:
        """Keeps what an answer said until the request has settled."""
        if news is not None:
            self._news.append(news)

    def _pass_on(self) -> None:
        for news in self._news:
            self.budget.tell(news)
        self._news.clear()


def once(options: APIConnectOptions) -> APIConnectOptions:
    """For the wrapped provider: repeating is the wrapper's business, with a reservation for each attempt."""
    return APIConnectOptions(max_retry=0, retry_interval=options.retry_interval, timeout=options.timeout)
