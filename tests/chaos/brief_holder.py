"""`python brief_holder.py URL ROOM`: holds the floor for a moment, leaves, says `over`, and lives on."""

from __future__ import annotations

import asyncio
import os
import sys

from coordination.coordinator import Coordinator
from coordination.ids import AgentId, RoleName, WorkerId
from tests.chaos.fleet_mutants import FLEET_MUTANTS


async def main(url: str, name: str) -> None:
    if mutant := os.environ.get("TEST_MUTANT"):
        FLEET_MUTANTS[mutant]()
    async with Coordinator.open(url) as coordinator:
        room = coordinator.room(name)
        membership = await room.roster.join(agent=AgentId("agent"), role=RoleName("billing"), worker=WorkerId("worker"))
        async with room.floor.hold("agent"):
            await asyncio.sleep(0.1)
        await membership.leave()
        print("over", flush=True)
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
