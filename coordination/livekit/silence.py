"""Silencing at the media server: LiveKit itself removes an agent from its room, whatever the agent is doing.

This is what makes an early takeover safe: the floor of an agent whose lease expired is granted only after LiveKit has
confirmed that it cannot be heard any more. Removal is sure but not permanent, since a process that slept comes back
with its old token: so silenced agents stay on a list, and `watch` removes each that joins again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import aiohttp
from livekit import api, rtc
from tenacity import AsyncRetrying, retry_if_exception, stop_never, wait_exponential

from coordination.ids import AgentId, check_name
from coordination.livekit.asking import is_absent, is_refusal
from coordination.livekit.identity import AGENT_ATTRIBUTE, agent_identity
from coordination.livekit.room_events import on_room
from coordination.ports import Silenced

DEADLINE = timedelta(seconds=1.5)
"""For one `silence`, repetitions included. LiveKit needs about 10 ms; a takeover can't wait for longer than this."""
ATTEMPT = timedelta(milliseconds=500)
"""For one request of it."""
AGENT_KIND = api.ParticipantInfo.Kind.AGENT

logger = logging.getLogger(__name__)


class RoomSilencer:
    """Silences agents of one room; implements `coordination.ports.Silencer`.

    An agent is found by its identity: the one it was `introduce`d with, else the framework's default, else by what it
    declared itself (`coordination.livekit.identity.declare`). An agent with an identity of its own of which none of
    that is known counts as absent. Identities must not be used again by another job of the same room: whoever joins
    under a silenced one is removed.
    """

    def __init__(
        self,
        client: api.LiveKitAPI,
        room: str,
        *,
        deadline: timedelta = DEADLINE,
        attempt: timedelta = ATTEMPT,
    ) -> None:
        """`client` stays the caller's, who closes it after this. `room` is the room's name."""
        self._client = client
        self._room = check_name(room, "room")
        self._deadline = deadline
        self._attempt = attempt
        self._identities: dict[AgentId, str] = {}
        self._silenced: dict[str, AgentId] = {}
        self._ends: list[Callable[[], None]] = []
        self._removals: set[asyncio.Task[None]] = set()

    def introduce(self, agent: AgentId, identity: str) -> None:
        """Says under which identity an agent is in the room; needed only where that is not LiveKit's default."""
        self._identities[agent] = identity

    def condemn(self, agent: AgentId, identity: str | None = None) -> None:
        """Puts an agent on the list of the silenced without silencing it now: what another process knows already."""
        if identity is not None:
            self.introduce(agent, identity)
        self._silenced[self._identities.get(agent) or agent_identity(agent)] = agent

    @property
    def silenced(self) -> frozenset[AgentId]:
        """The agents that must not be in the room any more."""
        return frozenset(self._silenced.values())

    async def silence(self, agent: AgentId) -> Silenced:
        """Removes the agent from the room, and returns when LiveKit has confirmed it or the deadline has passed.

        REMOVED and ABSENT are LiveKit's own word; UNREACHABLE says that nothing is known. In each case the agent is on
        the list afterwards. Repeats while there is time; repeating it later does no harm. Never raises for a server
        that is away or refuses. Cancelled, it may or may not have removed the agent, which stays on the list.
        """
        self.condemn(agent)
        try:
            async with asyncio.timeout(self._deadline.total_seconds()):
                async for attempt in _patiently():
                    with attempt:
                        async with asyncio.timeout(self._attempt.total_seconds()):
                            return await self._remove(agent)
        except (TimeoutError, aiohttp.ClientError, api.TwirpError) as fault:
            logger.warning(
                "LiveKit did not confirm that an agent is silent",
                extra={"agent": agent, "room": self._room, "fault": repr(fault)},
            )
        return Silenced.UNREACHABLE

    def watch(self, room: rtc.Room) -> Callable[[], None]:
        """Removes every silenced agent that joins, or is in, `room` from now on; the returned function ends that.

        For anybody who is in the room: it takes as many as there are agents, so that one of them is alive.
        """
        end = on_room(room, "participant_connected", self._on_joined)
        self._ends.append(end)
        for participant in list(room.remote_participants.values()):
            self._on_joined(participant)
        return end

    async def aclose(self) -> None:
        """Ends all watching, and the removals that are under way."""
        for end in self._ends:
            end()
        for removal in list(self._removals):
            removal.cancel()
        await asyncio.gather(*self._removals, return_exceptions=True)

    def _on_joined(self, participant: rtc.RemoteParticipant) -> None:
        agent = self._silenced.get(participant.identity)
        if agent is None:
            return
        logger.warning("a silenced agent came back and is removed", extra={"agent": agent, "room": self._room})
        removal = asyncio.create_task(self._remove_again(agent), name=f"baton: remove {participant.identity}")
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def _remove_again(self, agent: AgentId) -> None:
        await self.silence(agent)

    async def _remove(self, agent: AgentId) -> Silenced:
        identity = self._identities.get(agent) or agent_identity(agent)
        if await self._remove_identity(identity):
            return Silenced.REMOVED
        identity = await self._declared_identity(agent)
        if identity is None:
            return Silenced.ABSENT
        self.condemn(agent, identity)
        return Silenced.REMOVED if await self._remove_identity(identity) else Silenced.ABSENT

    async def _remove_identity(self, identity: str) -> bool:
        """Returns whether the participant was there; when it returns, it is not."""
        wanted = api.RoomParticipantIdentity(room=self._room, identity=identity)
        removed = False
        while True:
            try:
                await self._client.room.remove_participant(wanted)
                removed = True
                found = await self._client.room.get_participant(wanted)
            except api.TwirpError as fault:
                if is_absent(fault):
                    return removed
                raise
            if found.state == api.ParticipantInfo.State.DISCONNECTED:
                return removed
            # It reconnected between the two requests: it is another connection now, so it goes once more.

    async def _declared_identity(self, agent: AgentId) -> str | None:
        """The identity of an agent that chose one of its own and declared whose it is; None if none is in the room."""
        listed = await self._client.room.list_participants(api.ListParticipantsRequest(room=self._room))
        for participant in listed.participants:
            declared = participant.attributes.get(AGENT_ATTRIBUTE)
            if participant.kind == AGENT_KIND and declared == agent:
                return participant.identity
        return None


def _patiently() -> AsyncRetrying:
    """Repeats what a moment may mend; the deadline around it ends it. A refusal would be one again."""
    return AsyncRetrying(
        retry=retry_if_exception(
            lambda fault: (
                isinstance(fault, TimeoutError | aiohttp.ClientError | api.TwirpError) and not is_refusal(fault)
            )
        ),
        wait=wait_exponential(multiplier=0.02, max=0.2),
        stop=stop_never,
        reraise=True,
    )
