"""Faults that an emulator can be told to have, each for the next request that asks for one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Self


class FaultKind(Enum):
    """What goes wrong."""

    STATUS = "status"
    """The request, or the handshake of a WebSocket, is answered with an error status."""
    DROP = "drop"
    """The connection breaks in the middle of the answer, without a word."""
    GARBAGE = "garbage"
    """In the middle of the answer comes something that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. Made by `status`, `drop` or `garbage`."""

    kind: FaultKind
    code: int = 500
    retry_after: timedelta | None = None
    after: int = 1
    """After how many pieces of the answer."""

    @classmethod
    def status(cls, code: int, *, retry_after: timedelta | None = None) -> Self:
        """An error status; 429 with `retry_after` is what a provider says to a client that goes too fast."""
        return cls(kind=FaultKind.STATUS, code=code, retry_after=retry_after)

    @classmethod
    def drop(cls, *, after: int = 1) -> Self:
        """Break off after that many pieces: chunks of text or of audio, or transcripts."""
        return cls(kind=FaultKind.DROP, after=after)

    @classmethod
    def garbage(cls, *, after: int = 1) -> Self:
        """Send nonsense after that many pieces, then end."""
        return cls(kind=FaultKind.GARBAGE, after=after)


@dataclass(slots=True)
class FaultPlan:
    """Faults in the order in which requests meet them."""

    _next: deque[Fault] = field(default_factory=deque[Fault])

    def add(self, fault: Fault, *, times: int = 1) -> None:
        self._next.extend([fault] * times)

    def take(self) -> Fault | None:
        """The fault of the request that begins now."""
        return self._next.popleft() if self._next else None
