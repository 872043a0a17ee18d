"""`baton rooms`: the rooms that are open, and who has the floor in them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from coordination.cli.options import Json, livekit
from coordination.cli.output import ago, print_json, print_table
from coordination.dev.extras import require_livekit

if TYPE_CHECKING:
    from coordination.dev.directory import OpenRoom


def rooms(json: Json = False) -> None:
    """List the open rooms, with the role that has the floor as the room's record says. Needs LIVEKIT_URL."""
    server = livekit()
    require_livekit()
    from coordination.dev.directory import list_rooms

    found = asyncio.run(list_rooms(server))
    if json:
        print_json([_shown(room) for room in found])
        return
    rows = [
        (room.name, room.sid, room.tenant, room.participants, room.role, room.fence, ago(room.opened_at))
        for room in found
    ]
    columns = ("room", "sid", "tenant", "participants", "floor", "fence", "opened")
    print_table("", columns, rows, empty="No room is open.")


def _shown(room: OpenRoom) -> dict[str, object]:
    """Without the metadata: an application keeps there what it likes, and this is a list."""
    return {name: value for name, value in asdict(room).items() if name != "metadata"}
