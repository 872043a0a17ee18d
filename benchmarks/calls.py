"""Calls of the benchmarks: a caller who types, listens, and takes down when whom was heard."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from livekit import api, rtc

from benchmarks.desk import ROLES
from coordination.coordinator import Coordinator, Room
from coordination.dev.stack import DevStack
from coordination.ids import AgentId
from coordination.livekit.dispatch import DispatchMetadata
from coordination.room.members import Member, MemberState
from tests.rooms.ears import Listener, eventually, listening

QUIET = 0.4


@asynccontextmanager
async def calling(stack: DevStack, coordinator: Coordinator) -> AsyncIterator[Call]:
    """A call that the first agent has answered."""
    key = stack.livekit
    name = f"bench-{secrets.token_hex(4)}"
    async with api.LiveKitAPI(key.url, key.api_key, key.api_secret) as client:
        created = await client.room.create_room(api.CreateRoomRequest(name=name))
        grants = api.VideoGrants(room_join=True, room=name)
        token = api.AccessToken(key.api_key, key.api_secret).with_identity("caller").with_grants(grants).to_jwt()
        caller = rtc.Room()
        await caller.connect(key.url, token)
        async with listening(caller) as ears:
            await client.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name=ROLES[0], room=name))
            call = Call(caller, ears, coordinator.room(created.sid), client, name)
            await eventually(lambda: any(ears.hears(ear.identity) for ear in ears.ears), "the call is answered")
            await call.quiet()
            yield call
        await call.room.close()
        await caller.disconnect()
        await client.room.delete_room(api.DeleteRoomRequest(room=name))


class Call:
    """One caller, and what it hears."""

    def __init__(self, caller: rtc.Room, ears: Listener, room: Room, client: api.LiveKitAPI, name: str) -> None:
        self.caller, self.ears, self.room = caller, ears, room
        self._client, self._name = client, name

    @property
    def identities(self) -> set[str]:
        return {ear.identity for ear in self.ears.ears}

    async def quiet(self) -> None:
        await eventually(
            lambda: not any(self.ears.hears(each, within=QUIET) for each in self.identities), "nobody speaks"
        )

    async def type(self, text: str) -> None:
        await self.caller.local_participant.send_text(text, topic="lk.chat")

    async def holder(self) -> str:
        """The identity of the agent that has the floor."""
        return f"agent-{(await self.room.floor.state()).holder}"

    async def worker(self) -> str:
        """The worker, by its name in the fleet, whose agent has the floor; empty if nobody has it."""
        holder = (await self.room.floor.state()).holder
        members = await self.room.roster.members()
        return next((each.worker for each in members if each.agent == holder), "")

    async def spare(self) -> bool:
        """Whether an agent stands by on another worker than the one that serves the call, after one was sent for."""
        known = {each.agent for each in await self.room.roster.members()}
        standby = DispatchMetadata(standby=True).format()
        request = api.CreateAgentDispatchRequest(agent_name=ROLES[0], room=self._name, metadata=standby)
        await self._client.agent_dispatch.create_dispatch(request)
        async with asyncio.timeout(20):
            while not (came := await self._standing_by(known)):
                await asyncio.sleep(0.05)
        return came.worker != await self.worker()

    async def _standing_by(self, known: set[AgentId]) -> Member | None:
        members = await self.room.roster.members()
        return next((each for each in members if each.agent not in known and each.state is MemberState.STANDBY), None)

    def overlap(self, one: str, other: str, *, since: float) -> float:
        """Milliseconds in which both were heard at once."""
        slots = [{int(frame.at * 100) for frame in self.ears.audible(each, since=since)} for each in (one, other)]
        return len(slots[0] & slots[1]) * 10.0
