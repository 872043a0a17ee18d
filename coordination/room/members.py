"""Who is in a room: what the roster knows of an agent, and how that is written down."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from coordination.errors import InvalidArgument, InvalidName, UnsupportedFormat
from coordination.ids import MAX_NAME, AgentId, ProcessId, RoleName, WorkerId, check_name
from coordination.room.clock import micros, moment

DEAD_AFTER: Final = timedelta(seconds=6)
"""An agent without a heartbeat for so long is dead: three were missed."""


class MemberState(StrEnum):
    """What an agent is doing in the room."""

    JOINING = "joining"
    """Connected, not prepared yet."""
    STANDBY = "standby"
    """Prepared, without the floor."""
    HOLDER = "holder"
    """Holds the floor."""
    LEAVING = "leaving"
    """On its way out: it may still speak, and no longer keeps others from claiming its role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One agent of the room, as it was when the roster was read."""

    agent: AgentId
    role: RoleName
    worker: WorkerId
    process: ProcessId
    skills: tuple[str, ...] = ()
    state: MemberState = MemberState.JOINING
    identity: str = ""
    """Identity of its LiveKit participant; empty outside LiveKit."""
    joined_at: datetime
    """The server's clock."""
    alive: bool = True
    """Whether it was heard of within `DEAD_AFTER`."""
    silent_for: timedelta = field(default=timedelta(0), compare=False)
    """Since its last heartbeat."""


def check_member(agent: object, role: object, worker: object, skills: Iterable[object], identity: object) -> None:
    """Raises `InvalidName` for the first name that cannot be used."""
    check_name(agent, "agent")
    check_name(role, "role")
    check_name(worker, "worker")
    if isinstance(skills, str):
        raise InvalidArgument(f"skills={skills!r} is one string: pass a sequence of names, e.g. ({skills!r},).")
    for skill in skills:
        check_name(skill, "skill")
    if not isinstance(identity, str):
        raise InvalidName("participant identity", identity, f"it is a {type(identity).__name__}, not a string")
    if len(identity) > MAX_NAME:
        raise InvalidName("participant identity", identity, f"it has {len(identity)} characters")


def dump(member: Member) -> str:
    """As JSON with strings only: a script decodes and encodes it again, which would change numbers and empty lists."""
    return json.dumps(
        {
            "role": member.role,
            "worker": member.worker,
            "process": member.process,
            "skills": "\n".join(member.skills),
            "state": member.state.value,
            "identity": member.identity,
            "joined_at": str(micros(member.joined_at)),
        },
        ensure_ascii=False,
    )


def load(agent: bytes, text: bytes, *, now: int, beat: int | None) -> Member:
    """Reads what `dump` wrote. Raises `UnsupportedFormat` for anything else."""
    silent = timedelta(microseconds=max(0, now - beat)) if beat is not None else DEAD_AFTER
    try:
        stored: Any = json.loads(text)
        return Member(
            agent=AgentId(agent.decode()),
            role=RoleName(stored["role"]),
            worker=WorkerId(stored["worker"]),
            process=ProcessId(stored["process"]),
            skills=tuple(stored["skills"].split("\n")) if stored["skills"] else (),
            state=MemberState(stored["state"]),
            identity=stored["identity"],
            joined_at=moment(int(stored["joined_at"])),
            alive=silent < DEAD_AFTER,
            silent_for=silent,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedFormat(
            f"The roster entry of agent {agent.decode(errors='replace')!r} cannot be read ({error!r}): it was written "
            "by an incompatible release. Run at most two adjacent releases side by side."
        ) from error
