"""`baton agents ROOM` and `baton agents drain`: who is in a room, and moving calls to other workers."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coordination.cli.options import Json, RedisUrl, RoomArgument, TenantName, redis
from coordination.cli.output import NotFound, ago, print_json, print_table, seconds
from coordination.dev.livekit_server import livekit_from_environment
from coordination.errors import InvalidArgument
from coordination.ids import WorkerId
from coordination.room.members import Member


class _ListByDefault(TyperGroup):
    """`baton agents ROOM` is short for `baton agents list ROOM`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["list", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_ListByDefault, no_args_is_help=True, help="The agents of a room: list them (`baton agents ROOM`), move them."
)


@app.command("list")
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


@app.command()
def drain(
    room: Annotated[str | None, typer.Argument(help="The room's name in LiveKit, or its SID.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent of the room, by its id or its role.")] = None,
    worker: Annotated[str | None, typer.Option(help="All calls of this worker; it takes no new ones.")] = None,
    tenant: TenantName = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Ask agents to leave their calls to others of their role. Exit status 4 if there is no such agent or worker.

    Each call moves at a turn boundary, when another agent of the role is ready; until then it stays where it is.
    """
    if (room is None) == (worker is None):
        raise InvalidArgument("Name a room (`baton agents drain ROOM`), or a worker (`--worker ID`), and not both.")
    if worker is not None:
        asyncio.run(_drain_worker(WorkerId(worker), redis(redis_url)))
        asked = [worker]
    else:
        asked = asyncio.run(_drain_room(room or "", agent, tenant, redis(redis_url)))
    if json:
        print_json({"asked": asked})
    else:
        print(f"Asked to leave: {', '.join(asked)}. Calls move as soon as another agent of their role is ready.")


def workers(redis_url: RedisUrl = None, json: Json = False) -> None:
    """List the workers of the fleet, with the calls that they have."""
    rows = asyncio.run(_workers(redis(redis_url)))
    if json:
        print_json([{"worker": name, "silent_for": silent, "agents": agents} for name, silent, agents in rows])
        return
    print_table("", ("worker", "last heard of", "agents"), rows, empty="No worker takes part in the watch.")


async def _members(room: str, tenant: str | None, redis_url: str) -> tuple[Member, ...]:
    from coordination.dev.operator import locate, open_room

    livekit = livekit_from_environment()
    address = await locate(room, tenant=tenant, livekit=livekit)
    async with open_room(address, redis_url=redis_url, livekit=livekit) as opened:
        return await opened.roster.members()


async def _drain_room(room: str, wanted: str | None, tenant: str | None, redis_url: str) -> list[str]:
    from coordination.dev.operator import locate, open_room

    livekit = livekit_from_environment()
    address = await locate(room, tenant=tenant, livekit=livekit)
    async with open_room(address, redis_url=redis_url, livekit=livekit) as opened:
        members = await opened.roster.members()
        matching = [each for each in members if wanted is None or wanted in (each.agent, each.role)]
        asked = [each.agent for each in matching if await opened.roster.ask_to_leave(each.agent, reason="operator")]
    if not asked:
        there = ", ".join(f"{each.role} ({each.agent})" for each in members) or "nobody"
        raise NotFound(f"{wanted or 'Nobody'} is on the roster of {room}; there is: {there}.")
    return [str(agent) for agent in asked]


async def _drain_worker(worker: WorkerId, redis_url: str) -> None:
    from coordination.coordinator import Coordinator

    async with Coordinator.open(redis_url) as coordinator:
        if not await coordinator.fleet.tell(worker, "drain"):
            known = ", ".join(sorted(await coordinator.fleet.workers())) or "none"
            raise NotFound(f"No worker {worker} listens; the fleet knows: {known}.")


async def _workers(redis_url: str) -> list[tuple[str, str, int]]:
    from coordination.coordinator import Coordinator

    async with Coordinator.open(redis_url) as coordinator:
        state = await coordinator.fleet.read()
    return [
        (worker, f"{seconds(silent)} ago", sum(1 for _ in state.of_worker(worker)))
        for worker, silent in sorted(state.workers.items())
    ]
