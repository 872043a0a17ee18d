"""Announcements of the floor: the room itself as a witness of who was granted it, whatever becomes of Redis.

Each grant is published to the room with its fence. An agent that sees a higher fence than its own must doubt its
lease. Anybody can publish on the topic, so an announcement counts only if it comes from a participant that the server
vouches for as an agent, and if its fence is near the own clock, as every real one is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from livekit import rtc
from pydantic import ConfigDict, Field, ValidationError

from coordination.ids import MAX_NAME, AgentId, Fence, RoleName
from coordination.livekit.envelope import VERSION, Ours
from coordination.livekit.identity import is_agent
from coordination.livekit.room_events import on_room

FLOOR_TOPIC = "baton.floor"
PLAUSIBLE = timedelta(hours=1)
"""How far a fence, microseconds of the store's clock, may be from the own clock. Clocks of hosts differ by less, and
a pretended fence cannot silence a room for longer than that."""
MAX_FENCE = 2**53
"""The store's scripts count in doubles; beyond this they could not tell neighbours apart."""
MAX_BYTES = 4096
"""Of an announcement; two names of the greatest length fit. What is longer is not even parsed."""

logger = logging.getLogger(__name__)


class _Fields(Ours):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    fence: int = Field(gt=0, le=MAX_FENCE)
    agent: str = Field(min_length=1, max_length=MAX_NAME)
    role: str | None = Field(default=None, max_length=MAX_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorAnnouncement:
    """The floor was granted to `agent` with `fence`."""

    fence: Fence
    agent: AgentId
    role: RoleName | None = None

    def encode(self) -> bytes:
        fields = _Fields(fence=self.fence, agent=self.agent, role=self.role)
        return fields.model_dump_json(exclude_none=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> FloorAnnouncement | None:
        """None for whatever is not an announcement that this release understands."""
        if len(data) > MAX_BYTES:
            return None
        try:
            fields = _Fields.model_validate_json(data)
        except ValidationError:
            return None
        if fields.v != VERSION:
            return None
        role = RoleName(fields.role) if fields.role else None
        return cls(fence=Fence(fields.fence), agent=AgentId(fields.agent), role=role)


class Refusal(StrEnum):
    """Why an announcement had no effect."""

    NO_AGENT = "its sender is no agent"
    UNREADABLE = "it cannot be read"
    IMPLAUSIBLE = "its fence is far from the own clock"


async def announce(room: rtc.Room, announcement: FloorAnnouncement) -> None:
    """Publishes a grant to all participants, reliably. For the agent that was granted the floor.

    Does nothing while the room is not connected: it is a second witness, and never the only carrier of a grant.
    """
    if not room.isconnected():
        return
    try:
        await room.local_participant.publish_data(announcement.encode(), reliable=True, topic=FLOOR_TOPIC)
    except rtc.participant.PublishDataError as fault:
        logger.warning("a grant of the floor was not announced", extra={"fault": fault.message})


class FloorWitness:
    """Hears announcements in one room and passes on those that count: `on_grant(fence, agent)`.

    `refused` counts the others by reason. The callback runs in the room's event handler: it returns at once. LiveKit
    tells of a participant that publishes no track up to 3 s late; until then it is nobody, and its word is refused.
    """

    def __init__(
        self,
        room: rtc.Room,
        on_grant: Callable[[Fence, AgentId], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._on_grant = on_grant
        self._clock = clock
        self.refused: dict[Refusal, int] = dict.fromkeys(Refusal, 0)
        self._stop_hearing = on_room(room, "data_received", self._on_data)

    def close(self) -> None:
        """Hears nothing any more. Closing twice does no harm."""
        self._stop_hearing()

    def _on_data(self, packet: rtc.DataPacket) -> None:
        if packet.topic != FLOOR_TOPIC:
            return
        verdict = self.judge(packet.data, packet.participant)
        if isinstance(verdict, Refusal):
            # One warning per reason: whoever floods the topic shall not flood the log.
            level = logging.DEBUG if self.refused[verdict] else logging.WARNING
            self.refused[verdict] += 1
            logger.log(level, "an announcement of the floor was ignored: %s", verdict)
            return
        self._on_grant(verdict.fence, verdict.agent)

    def judge(self, data: bytes, sender: rtc.RemoteParticipant | None) -> FloorAnnouncement | Refusal:
        """The announcement if it counts, else the reason why it does not."""
        if not is_agent(sender):
            return Refusal.NO_AGENT
        announcement = FloorAnnouncement.decode(data)
        if announcement is None:
            return Refusal.UNREADABLE
        distance = timedelta(microseconds=abs(announcement.fence - self._clock() * 1e6))
        return announcement if distance <= PLAUSIBLE else Refusal.IMPLAUSIBLE
