"""The roster: which agents are in the room, each with a role, and at most one live agent of a claimed role.

Joining and claiming are one script, so that two dispatches for one role never give two agents. A member proves every
two seconds that it lives; the same heartbeat keeps all keys of the room. A member that was removed (by a takeover) is
refused for a minute: a process that wakes up after a pause asks here first, and ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, cast

from coordination.errors import CoordinationError, RoleTaken, StoreError
from coordination.ids import AgentId, ProcessId, RoleName, WorkerId, check_name
from coordination.room.changes import Changes, Kind
from coordination.room.clock import moment, ms, us
from coordination.room.members import DEAD_AFTER, Member, MemberState, check_member, dump, load
from coordination.store import RoomKeys, Script, Store
from coordination.store.keys import ROOM_TTL
from coordination.store.store import PATIENCE

logger = logging.getLogger("coordination.room")

HEARTBEAT_EVERY: Final = timedelta(seconds=2)
DOUBT_AFTER: Final = timedelta(seconds=1.5)
"""Younger heartbeats are believed. Somewhat under the interval, so that an agent that has just died does not keep its
role from a replacement for the whole of `DEAD_AFTER`; who is doubted is pinged before it counts as dead."""
REFUSED_FOR: Final = timedelta(seconds=60)
"""Longer than the pauses from which a process has been seen to come back into its room (25 s)."""
ENDED_TTL: Final = timedelta(seconds=30)
"""What is left of a room after its last member, for those who export it."""

_JOIN: Final = "roster/join"
_BEAT: Final = "roster/beat"
_LEAVE: Final = Script.load("roster/leave")
_REMOVE: Final = Script.load("roster/remove")
_READ: Final = Script.load("roster/read")
_ASK: Final = Script.load("roster/ask")


class AgentRemoved(CoordinationError):
    """The agent was taken off the roster and is refused: another continues its call."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        super().__init__(
            f"Agent {agent!r} was removed from this room and is refused for {REFUSED_FOR.total_seconds():.0f} s: "
            "another agent continues its call. Leave the room; a new job has a new agent id."
        )


class AgentTaken(CoordinationError):
    """A live agent of another process uses the same agent id in this room."""

    def __init__(self, agent: str, process: str) -> None:
        self.agent, self.process = agent, process
        super().__init__(
            f"Agent {agent!r} is in this room already, in process {process!r}: agent ids are unique in a room. "
            "Use another id (in LiveKit rooms: the job id)."
        )


class MembershipLoss(StrEnum):
    """Why an agent is no longer a member."""

    REMOVED = "removed"
    """It was taken off the roster from outside: it was silenced, taken over, or replaced by another claim."""
    ROLE_TAKEN = "role_taken"
    """The server forgot the room, and another agent claimed the role before this one could put itself back."""
    ELSEWHERE = "elsewhere"
    """Another process joined under its agent id after this one had counted as dead."""


_LOSSES: Final = {
    "removed": MembershipLoss.REMOVED,
    "taken": MembershipLoss.ROLE_TAKEN,
    "elsewhere": MembershipLoss.ELSEWHERE,
}


class Membership:
    """An agent's own entry in the roster, kept alive in the background until `leave`. Made by `Roster.join`."""

    def __init__(self, roster: Roster, member: Member, *, claim: bool) -> None:
        self._roster = roster
        self._member = member
        self._claim = claim
        # One writer at a time: a heartbeat that is being repeated after an outage must not follow the leave.
        self._writing = asyncio.Lock()
        self._left = False
        self.lost = asyncio.Event()
        """Set as soon as the roster says that the agent is no longer a member. An own `leave` does not set it."""
        self.reason: MembershipLoss | None = None
        self.asked_to_leave = asyncio.Event()
        """Set when somebody wants this agent to leave its call to another one: a draining worker, or an operator."""
        self._task = asyncio.create_task(self._beat_on(), name=f"baton-heartbeat-{member.agent}")

    @property
    def member(self) -> Member:
        """The own entry as it was last written."""
        return self._member

    async def set_state(self, state: MemberState) -> None:
        """Tells the room the agent's state. Raises `StoreError`; then the next heartbeat tells it.

        Once the membership is lost or left, nothing is written.
        """
        self._member = replace(self._member, state=MemberState(state))
        await self._beat()

    async def leave(self) -> None:
        """Takes the agent off the roster. After the last live member, all keys of the room expire within 30 s.

        Safe to call twice. Completes when cancelled, then raises the cancellation. While Redis is away the entry is
        left to expire, which is logged.
        """
        if self._left:
            return
        self._left = True
        leaving = asyncio.create_task(self._leave(), name=f"baton-leave-{self._member.agent}")
        try:
            await asyncio.shield(leaving)
        except asyncio.CancelledError:
            # Bounded by the store's patience.
            await asyncio.wait([leaving])
            raise

    async def _leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        async with self._writing:
            if self.reason is None:
                await self._roster.leave(self._member.agent)
        self._roster.forget(self)

    async def _beat_on(self) -> None:
        with self._roster.changes.subscribe(Kind.ROSTER) as wakeup:
            while self.reason is None:
                await wakeup.next(HEARTBEAT_EVERY)
                try:
                    await self._beat()
                except StoreError as error:
                    logger.debug("a heartbeat failed, the next one follows: %s", error)

    async def _beat(self) -> None:
        async with self._writing:
            if self._left or self.reason is not None:
                return
            verdict, by = await self._roster.write(_BEAT, self._member, claim=self._claim)
            if verdict == "ok" and by:
                self.asked_to_leave.set()
            if verdict in _LOSSES:
                self.reason = _LOSSES[verdict]
                self.lost.set()
                self._roster.forget(self)
                logger.warning("an agent is no longer a member of its room: %s %s", verdict, by)


class Roster:
    """The agents of one room."""

    def __init__(self, store: Store, keys: RoomKeys, process: ProcessId, changes: Changes) -> None:
        """`process` must listen on its channel (`keys.of_process`) before an agent joins, or it may count as dead."""
        self._store = store
        self._keys = keys
        self._process = process
        self._memberships: set[Membership] = set()
        self.changes = changes

    async def join(
        self,
        *,
        agent: AgentId,
        role: RoleName,
        worker: WorkerId,
        skills: Sequence[str] = (),
        identity: str = "",
        state: MemberState = MemberState.JOINING,
        claim: bool = True,
    ) -> Membership:
        """Puts the agent on the roster and keeps it there.

        With `claim` the role is decided atomically: `RoleTaken` if a live agent of the room serves it and is not
        leaving. A dead one (no heartbeat for 6 s, or none for 1.5 s and its process does not answer) is replaced: it
        is removed and refused for a minute. Without `claim` several agents may serve one role.

        Raises `InvalidName`; `AgentRemoved` if the agent was removed less than a minute ago; `AgentTaken` if another
        live process uses its id; `StoreError`. When cancelled, or when Redis fails, nothing is left behind that
        outlives the first missing heartbeats.
        """
        check_member(agent, role, worker, skills, identity)
        if any(membership.member.agent == agent for membership in self._memberships):
            raise AgentTaken(agent, self._process)
        await self.changes.open()
        member = Member(
            agent=agent,
            role=role,
            worker=worker,
            process=self._process,
            skills=tuple(skills),
            state=MemberState(state),
            identity=identity,
            joined_at=datetime.now(UTC),
        )
        try:
            verdict, detail = await self.write(_JOIN, member, claim=claim)
        except BaseException:
            # The script may have run: the undoing goes out behind it, on the same connection.
            undoing = asyncio.create_task(self.leave(agent, patience=0), name=f"baton-leave-{agent}")
            await asyncio.shield(undoing)
            raise
        if verdict == "removed":
            raise AgentRemoved(agent)
        if verdict == "elsewhere":
            raise AgentTaken(agent, detail)
        if verdict == "taken":
            raise RoleTaken(role, detail)
        membership = Membership(self, replace(member, joined_at=moment(int(detail))), claim=claim)
        self._memberships.add(membership)
        return membership

    async def members(self) -> tuple[Member, ...]:
        """All members in the order in which they joined, the silent ones too (`Member.alive` is False for these)."""
        now, fields, beats = await self._read()
        found = [
            load(agent, text, now=now, beat=beats.get(agent))
            for agent, text in fields.items()
            if not agent.startswith(b"{")
        ]
        return tuple(sorted(found, key=lambda member: (member.joined_at, member.agent)))

    async def removed(self) -> frozenset[AgentId]:
        """The agents that are refused now. One of them that shows up in the room again must be removed again."""
        now, fields, _ = await self._read()
        mark = b"{gone}"
        return frozenset(
            AgentId(name[len(mark) :].decode())
            for name, until in fields.items()
            if name.startswith(mark) and int(until) > now
        )

    def watch(self) -> AsyncIterator[tuple[Member, ...]]:
        """The members now, then at each change, a member's falling silent included (seen within 2 s of it)."""
        return self.changes.watch(Kind.ROSTER, self.members, within=HEARTBEAT_EVERY)

    async def remove(self, agent: AgentId, *, reason: str) -> bool:
        """Takes an agent off the roster and refuses it for a minute, whether it was a member or not.

        True if it was a member. Its membership is lost as soon as it hears of it. The floor is not touched.
        """
        check_name(agent, "agent")
        args = (agent, reason, self._keys.everyone, us(REFUSED_FOR), ms(ROOM_TTL))
        keys = (self._keys.roster, self._keys.beats, self._keys.events)
        return bool(await self._store.run(_REMOVE, keys, args))

    async def ask_to_leave(self, agent: AgentId, *, reason: str) -> bool:
        """Asks an agent to leave its call to another one as soon as it can; False if it is not on the roster."""
        check_name(agent, "agent")
        args = (agent, " ".join(reason.split())[:200] or "asked", self._keys.everyone)
        return bool(await self._store.run(_ASK, (self._keys.roster, self._keys.events), args))

    async def close(self) -> None:
        """Takes all agents of this process off the roster."""
        await asyncio.gather(*(membership.leave() for membership in tuple(self._memberships)))

    def forget(self, membership: Membership) -> None:
        self._memberships.discard(membership)

    async def leave(self, agent: AgentId, *, patience: float = PATIENCE) -> bool:
        """Takes off an agent that this process put there; False if it was not on the roster, or Redis is away."""
        args = (agent, self._process, self._keys.everyone, ms(ENDED_TTL), us(DEAD_AFTER))
        try:
            return bool(await self._store.run(_LEAVE, self._all, args, patience=patience))
        except StoreError as error:
            logger.warning("an agent's roster entry is left to expire: %s", error)
            return False

    async def write(self, script: str, member: Member, *, claim: bool) -> tuple[str, str]:
        """Runs `roster/join` or `roster/beat`; returns the verdict and its detail."""
        args = (
            member.agent,
            dump(member),
            int(claim),
            self._keys.channel,
            self._keys.everyone,
            ms(ROOM_TTL),
            us(DOUBT_AFTER),
            us(DEAD_AFTER),
            us(REFUSED_FOR),
        )
        reply: list[bytes] = await self._store.run(Script.load(script), self._all, args)
        return reply[0].decode(), reply[1].decode()

    @property
    def _all(self) -> tuple[str, ...]:
        return (self._keys.roster, self._keys.beats, self._keys.events, *self._keys.all)

    async def _read(self) -> tuple[int, dict[bytes, bytes], dict[bytes, int]]:
        reply = await self._store.run(_READ, (self._keys.roster, self._keys.beats))
        now, fields, beats = cast("tuple[bytes, list[bytes], list[bytes]]", reply)
        return (
            int(now),
            dict(zip(fields[::2], fields[1::2], strict=True)),
            {agent: int(float(score)) for agent, score in zip(beats[::2], beats[1::2], strict=True)},
        )
