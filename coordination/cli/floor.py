"""`baton floor show | revoke | grant`: who may speak in a room, and an operator's hand on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from coordination.cli.options import Json, RedisUrl, RoomArgument, TenantName, redis
from coordination.cli.output import Exit, NotFound, print_json, print_table, seconds
from coordination.dev.livekit_server import livekit_from_environment
from coordination.room.floor import FloorState
from coordination.room.members import Member

if TYPE_CHECKING:
    from coordination.coordinator import Room

Reason = Annotated[str, typer.Option(help="What the agents and the room's events are told.")]

app = typer.Typer(no_args_is_help=True, help="Who may speak in a room: show it, take it away, give it.")


@app.command()
def show(room: RoomArgument, tenant: TenantName = None, redis_url: RedisUrl = None, json: Json = False) -> None:
    """Show who holds the floor, until when, and who waits for it."""
    state = asyncio.run(_state(room, tenant, redis(redis_url)))
    if json:
        print_json(asdict(state))
        return
    if state.holder is None:
        print(f"The floor of {room} is free; the last fence was {state.fence or 'none'}.")
    else:
        late = state.expires_in is not None and state.expires_in.total_seconds() < 0
        until = f"expired {seconds(-state.expires_in)} ago" if late and state.expires_in else "held"
        notes = [until, *(["provisional"] if state.provisional else []), *(["revoked"] if state.condemned else [])]
        row = (state.holder, state.role, state.fence, seconds(state.expires_in), ", ".join(notes))
        print_table("", ("holder", "role", "fence", "expires in", "state"), [row], empty="")
    queue = [(place, each.agent, each.role, each.priority) for place, each in enumerate(state.queue, start=1)]
    if queue:
        print_table("waiting", ("", "agent", "role", "priority"), queue, empty="")


@app.command()
def revoke(
    room: RoomArgument,
    reason: Reason = "operator",
    tenant: TenantName = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Take the floor from whoever holds it; the next that waits gets it. Exit status 1 if nobody held it."""
    revoked = asyncio.run(_revoke(room, tenant, redis(redis_url), reason))
    if json:
        print_json({"revoked": revoked})
    else:
        print(f"The floor of {room} was taken away." if revoked else f"Nobody held the floor of {room}.")
    raise typer.Exit(Exit.OK if revoked else Exit.BAD_ANSWER)


@app.command()
def grant(
    room: RoomArgument,
    agent: Annotated[str, typer.Argument(help="The agent's id or its role.", show_default=False)],
    reason: Reason = "operator",
    tenant: TenantName = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Give the floor to an agent of the room. Exit status 4 if it is not there."""
    member, fence = asyncio.run(_grant(room, tenant, redis(redis_url), agent, reason))
    if json:
        print_json({"agent": member.agent, "role": member.role, "fence": fence})
    else:
        print(f"{member.role} ({member.agent}) has the floor of {room}, with fence {fence}.")


@asynccontextmanager
async def _opened(room: str, tenant: str | None, redis_url: str) -> AsyncGenerator[Room]:
    # Imported here, so that `baton --help` needs neither Redis nor LiveKit.
    from coordination.dev.operator import locate, open_room

    livekit = livekit_from_environment()
    address = await locate(room, tenant=tenant, livekit=livekit)
    async with open_room(address, redis_url=redis_url, livekit=livekit) as opened:
        yield opened


async def _state(room: str, tenant: str | None, redis_url: str) -> FloorState:
    async with _opened(room, tenant, redis_url) as opened:
        return await opened.floor.state()


async def _revoke(room: str, tenant: str | None, redis_url: str, reason: str) -> bool:
    async with _opened(room, tenant, redis_url) as opened:
        return await opened.floor.revoke(reason=reason)


async def _grant(room: str, tenant: str | None, redis_url: str, wanted: str, reason: str) -> tuple[Member, int]:
    async with _opened(room, tenant, redis_url) as opened:
        members = await opened.roster.members()
        matching = [each for each in members if wanted in (each.agent, each.role, each.identity)]
        member = next(iter(sorted(matching, key=lambda each: not each.alive)), None)
        if member is None:
            there = ", ".join(f"{each.role} ({each.agent})" for each in members) or "nobody"
            raise NotFound(f"{wanted} is not on the roster of {room}; there is: {there}.")
        fence = await opened.floor.grant(member.agent, member.process, role=member.role, reason=reason)
        return member, fence
