"""Names of the things that Baton coordinates.

Each is a `NewType`, so that a worker's id cannot be passed where an agent's is meant.
"""

from __future__ import annotations

import re
import secrets
from typing import NewType

from coordination.errors import InvalidName

Tenant = NewType("Tenant", str)
RoomName = NewType("RoomName", str)
"""What identifies a room to Redis together with its tenant: the LiveKit room SID, or any name outside LiveKit."""
RoleName = NewType("RoleName", str)
AgentId = NewType("AgentId", str)
"""One job in one room; in LiveKit rooms the job id."""
WorkerId = NewType("WorkerId", str)
ProcessId = NewType("ProcessId", str)
"""One process that speaks to Redis; the last part of the channels that it listens on."""
RequestId = NewType("RequestId", str)
HandoffId = NewType("HandoffId", str)
TurnId = NewType("TurnId", str)
Fence = NewType("Fence", int)

DEFAULT_TENANT = Tenant("default")
MAX_NAME = 256
"""LiveKit's own bound on names and identities, in characters."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f{}]")


def check_name(value: object, what: str) -> str:
    """Returns `value` if it can name a `what`: a string of 1 to 256 characters without control characters or braces.

    Braces mark the hash tag of a key; a name that holds them could move a key to a foreign slot.
    Raises `InvalidName`, which says what is wrong with it.
    """
    if not isinstance(value, str):
        raise InvalidName(what, value, f"it is a {type(value).__name__}, not a string")
    if not value:
        raise InvalidName(what, value, "it is empty")
    if len(value) > MAX_NAME:
        raise InvalidName(what, value, f"it has {len(value)} characters; at most {MAX_NAME} are allowed")
    if _FORBIDDEN.search(value):
        raise InvalidName(what, value, "it holds a control character or one of { and }")
    return value


def new_request_id() -> RequestId:
    """A random id; 96 bits, so that no two requests of a fleet meet."""
    return RequestId(secrets.token_hex(12))


def new_process_id() -> ProcessId:
    """A random id of this process, new with each coordinator."""
    return ProcessId(secrets.token_hex(8))
