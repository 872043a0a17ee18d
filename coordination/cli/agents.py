"""`baton agents ROOM`: who is in a room, what they do there, and whether they are alive."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from coordination.cli.options import Json, RedisUrl, RoomArgument, TenantName, redis
from coordination.cli.output import NotFound, ago, print_json, print_table, seconds
from coordination.dev.livekit_server import livekit_from_environment
from coordination.room.members import Member


def agents(room: RoomArgument, tenant: TenantName = None, redis_url: RedisUrl = None, json: Json = False) -> None:
    """List the agents of a room as its roster knows them. Exit status 4 if it knows nobody."""
    members = asyncio.run(_members(room, tenant, redis(redis_url)))
    if not members:
        raise NotFound(f"Nobody is on the roster of {room}: `baton rooms` lists the rooms that are open.")
    if json:
        print_json([asdict(member) for member in members])
        return
    rows = [
        (
            member.agent,
            member.role,
            member.state,
            "yes" if member.alive else f"no, silent for {seconds(member.silent_for)}",
            ago(member.joined_at),
            member.worker,
            ", ".join(member.skills) or None,
        )
        for member in members
    ]
    print_table("", ("agent", "role", "state", "alive", "joined", "worker", "skills"), rows, empty="")


async def _members(room: str, tenant: str | None, redis_url: str) -> tuple[Member, ...]:
    from coordination.dev.operator import locate, open_room

    livekit = livekit_from_environment()
    address = await locate(room, tenant=tenant, livekit=livekit)
    async with open_room(address, redis_url=redis_url, livekit=livekit) as opened:
        return await opened.roster.members()
