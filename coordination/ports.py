"""What the core needs of a media server and of a dispatcher, as small protocols.

`coordination.livekit` implements them; the core never imports LiveKit.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from coordination.ids import AgentId, RoleName, Tenant


class Silenced(StrEnum):
    """How an attempt to silence an agent at the media server ended."""

    REMOVED = "removed"
    """The agent was in the room; its participant was removed or lost the right to publish, confirmed."""
    ABSENT = "absent"
    """The agent was not in the room, or the room is gone."""
    SELF = "self"
    """The media server gave no answer, but under policy `silence` the agent's own gate is closed by now."""
    UNREACHABLE = "unreachable"
    """The media server gave no answer: nothing is known, so nothing may be granted on the strength of it."""

    @property
    def confirmed(self) -> bool:
        return self is not Silenced.UNREACHABLE


class Silencer(Protocol):
    """Makes the media server itself stop an agent's audio, from outside, in one room."""

    async def silence(self, agent: AgentId) -> Silenced:
        """Returns only when the outcome is known; bounded in time; never raises for an unreachable server."""
        ...


class Dispatcher(Protocol):
    """Asks the media server to send an agent of a role into one room."""

    async def dispatch(self, role: RoleName, *, metadata: str) -> str:
        """Returns the id of the dispatch. Raises `DispatchFailed` when the server refuses or does not answer."""
        ...


class CallServer(Protocol):
    """What recovery needs of a media server, for any of its rooms. Each call is bounded in time."""

    def silencer(self, room: str, *, identities: Mapping[AgentId, str]) -> Silencer:
        """The silencer of the room of that name, which is told under which identities its agents are there."""
        ...

    async def has_caller(self, room: str) -> bool:
        """Whether anybody is there to talk to; False also for a room that is gone. Raises `DispatchFailed`."""
        ...

    async def bring(self, role: RoleName, room: str, *, tenant: Tenant, instead_of: AgentId) -> None:
        """Sends an agent of the role into the room, which continues the call of a lost one. Raises `DispatchFailed`."""
        ...
