"""A worker of a fleet without LiveKit: its sign of life, its share in the watch, and one agent in a call, if any.

`python fleet_worker.py URL WORKER [ROOM ROLE holder|standby]`. It says on its output what happens, one JSON object a
line. The media server is a stand-in that records what it is asked for: `silence` and `bring`.
`TEST_MUTANT` names what is broken in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError
from coordination.ids import AgentId, RoleName, Tenant, WorkerId
from coordination.ports import Silenced, Silencer
from coordination.recovery.fleet import FleetAgent
from coordination.room.members import MemberState
from coordination.settings import CoordinatorSettings
from tests.chaos.fleet_mutants import FLEET_MUTANTS


def say(what: str, **more: object) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


class Calls:
    """A media server in which everybody is silenced at once, and each room has a caller."""

    def silencer(self, room: str, *, identities: Mapping[AgentId, str]) -> Silencer:
        return self

    async def silence(self, agent: AgentId) -> Silenced:
        say("silence", agent=agent)
        return Silenced.REMOVED

    async def has_caller(self, room: str) -> bool:
        return True

    async def bring(self, role: RoleName, room: str, *, tenant: Tenant, instead_of: AgentId) -> None:
        say("bring", role=role, room=room, instead_of=instead_of)


async def serve_agent(coordinator: Coordinator, worker: WorkerId, name: str, role: str, part: str) -> None:
    agent = AgentId(f"agent-of-{worker}")
    room = coordinator.room(name, silencer=Calls())
    membership = await room.roster.join(
        agent=agent, role=RoleName(role), worker=worker, state=MemberState.STANDBY, claim=False
    )
    entry = FleetAgent(
        agent=agent,
        worker=worker,
        process=coordinator.process,
        tenant=room.tenant,
        room=room.name,
        room_name=name,
        role=RoleName(role),
        identity=f"agent-{agent}",
    )
    entering = asyncio.create_task(stay(coordinator, entry))
    if part == "holder":
        await room.floor.request(agent, role=role)
        await membership.set_state(MemberState.HOLDER)
        say("holds", agent=agent)
    else:
        grant = room.floor.accept_grants(agent)
        waiting = asyncio.create_task(room.floor.expect_grant(agent, role=role, request_id=grant, timeout=None))
        say("stands by", agent=agent)
        lease = await waiting
        say("granted", agent=agent, fence=lease.fence)
    await entering


async def stay(coordinator: Coordinator, entry: FleetAgent) -> None:
    while True:
        try:
            if not await coordinator.fleet.enter(entry):
                say("given up", agent=entry.agent)
        except CoordinationError as error:
            say("cut off", error=str(error))
        await asyncio.sleep(1.0)


async def main(url: str, name: str, *call: str) -> None:
    worker = WorkerId(name)
    settings = CoordinatorSettings(takeover_within=timedelta(seconds=20), hang_limit=timedelta(seconds=4))
    async with AsyncExitStack() as parts:
        coordinator = await parts.enter_async_context(Coordinator.open(url, settings=settings))
        presence = coordinator.presence(worker, lambda command: say("told", command=command))
        await parts.enter_async_context(presence.kept())
        watcher = coordinator.watcher(worker, Calls())
        watching = asyncio.create_task(watcher.run())
        serving = asyncio.create_task(serve_agent(coordinator, worker, *call)) if call else None
        was = False
        while True:
            if watcher.watching != was:
                was = watcher.watching
                say("watcher" if was else "no watcher")
            for task in (watching, serving):
                if task is not None and task.done():
                    task.result()
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    if mutant := os.environ.get("TEST_MUTANT"):
        FLEET_MUTANTS[mutant]()
    asyncio.run(main(*sys.argv[1:]))
