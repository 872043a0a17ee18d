"""Which calls a worker takes: calls per tenant are counted over the whole cluster, once per room.

The first job of a room asks for the call's slot before it is accepted (`coordination.livekit.door`). Every later job of
the room, for a handoff, a standby or a takeover, finds the slot taken by its own call: it is never counted again and
never refused. Each worker with an agent in the call holds the slot. It is free when the call has ended, and a few
seconds after the last worker that held it died with nobody to take over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from livekit.agents import tts

from coordination.errors import InvalidArgument
from coordination.limits.config import LimitsConfig

LOBBY = "baton.lobby"
"""Participant attribute of an agent that is in the room to say that the call has to wait, or cannot be taken; its value
is the policy's."""


class WhenFull(StrEnum):
    """What becomes of a call that finds its tenant's lines taken."""

    REJECT = "reject"
    """No agent comes, and the room is closed: the caller's side is told that the call was ended."""
    ANNOUNCE = "announce"
    """An agent says that all lines are busy, and hangs up."""
    QUEUE = "queue"
    """An agent says which place in the queue the caller has, until the call's turn comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAdmission:
    """How a worker's calls are admitted. All workers of a cluster should say the same."""

    limits: LimitsConfig | None = None
    """How many calls each tenant may have; None: what the worker is configured with."""
    when_full: WhenFull = WhenFull.REJECT
    voice: Callable[[], tts.TTS[Any]] | None = None
    """Makes the voice of announcements. A function at the top level of a module: job processes import it."""
    busy: str = "All lines are busy at the moment. Please call again later."
    place: str = "All lines are busy. You are number {place} in the queue."
    """Said when the caller joins the queue, and again when the place has changed."""
    patience: timedelta = timedelta(minutes=5)
    """How long a call waits in the queue; then it hears `busy`."""

    def __post_init__(self) -> None:
        if self.when_full is not WhenFull.REJECT and self.voice is None:
            raise InvalidArgument(f"when_full={self.when_full.value} speaks to the caller: give a voice.")
        try:
            self.place.format(place=1)
        except (LookupError, ValueError):
            raise InvalidArgument(f"place={self.place!r} holds other braces than those of {{place}}.") from None
