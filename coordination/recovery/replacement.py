"""Replacing one lost agent: silence it, free its floor, and see to it that somebody continues its call.

The order is the guarantee. The agent loses the right to renew its lease; then the media server confirms that it is
silent; only then may anybody else have the floor. The next holder is the agent that was promised it, else a standby of
the same role, else one of a fallback role, else an agent that is dispatched: once, and again only if it has not come.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from coordination.errors import DispatchFailed
from coordination.ids import AgentId, RoleName
from coordination.metrics import METRICS
from coordination.ports import CallServer, Silenced, Silencer
from coordination.recovery.fleet import CLAIM_FOR, Fleet, FleetAgent
from coordination.room.events import Events
from coordination.room.floor import Floor, NotPresent
from coordination.room.members import Member, MemberState
from coordination.room.roster import Roster

logger = logging.getLogger("coordination.recovery")

SILENCE_AGAIN: Final = 0.25
"""Seconds between attempts to silence an agent while the media server gives no answer."""
TAKEN_WITHIN: Final = 0.35
"""Seconds in which a standby has to confirm the floor that was passed to it: the provisional window, and a little."""
TAKEOVER: Final = "takeover: "
GIVE_UP: Final = "give up: "
"""How the reason begins with which a standby is given the floor: it tells the agent what it continues."""
RENEW_CLAIM: Final = CLAIM_FOR.total_seconds() / 3


class LostRoom(Protocol):
    """What a recovery needs of a room."""

    floor: Floor
    roster: Roster
    events: Events

    async def promised_to(self) -> AgentId | None:
        """The agent that an open handoff has made ready to take the floor."""
        ...

    async def target_lost(self, agent: AgentId, *, reason: str) -> None:
        """Ends an open handoff to this agent, so that whoever offered it learns at once."""
        ...


OpenRoom = Callable[[FleetAgent, Silencer], AbstractAsyncContextManager[LostRoom]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How lost agents are replaced."""

    fallback: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """By role: the roles that may continue its calls, best first; `*` for all that are not named."""
    dispatches: int = 4
    """How often an agent is dispatched before the call is given up."""
    joins_within: timedelta = timedelta(seconds=3)
    """How long a dispatched agent may take to the floor; half as much longer with each further attempt."""
    most: int = 5
    """Replacements in one room within `window`: a room whose agents keep dying is left alone after that."""
    window: timedelta = timedelta(minutes=10)

    def fallbacks(self, role: str) -> Sequence[str]:
        return fallbacks_of(role, self.fallback)


def fallbacks_of(role: str, fallback: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The roles that may continue a call of `role`, best first."""
    return fallback.get(role, fallback.get("*", ()))


class Replacement:
    """Replaces lost agents, one call of `recover` each. Any number of processes may try: one of them does it."""

    def __init__(self, fleet: Fleet, server: CallServer, open_room: OpenRoom, *, policy: Policy) -> None:
        self._fleet, self._server, self._open_room, self._policy = fleet, server, open_room, policy

    async def recover(self, lost: FleetAgent, reason: str) -> None:
        """Returns when the agent is silenced and replaced, or given up; at once if another process is at it.

        Raises `StoreError` when Redis goes away meanwhile: the agent stays on the registry, and the next look finds it
        again. Cancelled, it leaves the claim to expire.
        """
        claim = await self._fleet.claim(lost.agent)
        if claim is None:
            return
        began = time.monotonic()
        METRICS.lost_agent(reason)
        logger.warning("an agent is lost (%s); its call is taken up", reason)
        async with self._keeping_claim(lost):
            silencer = self._server.silencer(lost.room_name, identities={lost.agent: lost.identity})
            async with self._open_room(lost, silencer) as room:
                await self._silence(room, silencer, lost, reason)
                succession = _Succession(
                    self._fleet, self._server, self._policy, room, lost, reason, began, claim.coming
                )
                await succession.settle()
        await self._fleet.leave(lost.agent, replaced=True)

    @asynccontextmanager
    async def _keeping_claim(self, lost: FleetAgent) -> AsyncGenerator[None]:
        async def keep() -> None:
            while True:
                await asyncio.sleep(RENEW_CLAIM)
                await self._fleet.claim(lost.agent)

        keeping = asyncio.create_task(keep(), name="baton: keep the claim of a recovery")
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _silence(self, room: LostRoom, silencer: Silencer, lost: FleetAgent, reason: str) -> None:
        """Returns when the agent cannot be heard any more, is refused if it comes back, and its floor is free."""
        fence = await room.floor.condemn(lost.agent, reason=reason)
        await room.roster.remove(lost.agent, reason=reason)
        outcome = await silencer.silence(lost.agent)
        while not outcome.confirmed:
            METRICS.silenced(outcome)
            if fence is not None and await room.floor.is_shut(fence):
                outcome = Silenced.SELF
                break
            await asyncio.sleep(SILENCE_AGAIN)
            outcome = await silencer.silence(lost.agent)
        METRICS.silenced(outcome)
        await room.target_lost(lost.agent, reason=f"the agent is lost: {reason}")
        if fence is not None:
            await room.floor.free(fence, outcome)


@dataclass(slots=True)
class _Succession:
    """Who has the floor after a lost agent."""

    fleet: Fleet
    server: CallServer
    policy: Policy
    room: LostRoom
    lost: FleetAgent
    reason: str
    began: float
    coming: timedelta

    async def settle(self) -> None:
        """Returns when the floor has a holder, or nobody is there who needs one."""
        policy, server = self.policy, self.server
        if await self._held() or await self._pass_to_standby():
            return
        if not await server.has_caller(self.lost.room_name):
            return
        if await self._replacements() >= policy.most:
            await self._give_up(f"{policy.most} agents were lost here within {policy.window}")
            return
        roles = [self.lost.role] * policy.dispatches + [RoleName(r) for r in policy.fallbacks(self.lost.role)[:1]]
        within = policy.joins_within
        for role in roles:
            if await self._dispatch(role, within) or await self._pass_to_standby():
                return
            if not await server.has_caller(self.lost.room_name):
                return
            within *= 1.5
        await self._give_up("no agent came")

    # -- from the room ----------------------------------------------------------------------------

    async def _pass_to_standby(self) -> bool:
        for member in await self._candidates():
            await self._record("takeover", member.role)
            try:
                fence = await self.room.floor.pass_to(
                    member.agent, member.process, role=member.role, reason=f"{TAKEOVER}{self.reason}"
                )
            except NotPresent:
                continue
            if fence is None or await self._taken(member.agent):
                METRICS.takeover("standby", time.monotonic() - self.began)
                return True
        return False

    async def _candidates(self) -> list[Member]:
        """Standbys that may continue the call: the promised one, its own role, then the fallback roles in order."""
        promised = await self.room.promised_to()
        order = [self.lost.role, *self.policy.fallbacks(self.lost.role)]
        standing_by = [
            each
            for each in await self.room.roster.members()
            if each.alive and each.state is MemberState.STANDBY and (each.role in order or each.agent == promised)
        ]
        return sorted(
            standing_by,
            key=lambda each: (each.agent != promised, order.index(each.role) if each.role in order else len(order)),
        )

    async def _taken(self, agent: AgentId) -> bool:
        deadline = time.monotonic() + TAKEN_WITHIN
        while time.monotonic() < deadline:
            state = await self.room.floor.state()
            if state.holder != agent:
                return state.holder is not None
            if not state.provisional:
                return True
            await asyncio.sleep(0.02)
        return False

    async def _held(self) -> bool:
        return (await self.room.floor.state()).holder is not None

    # -- from elsewhere ---------------------------------------------------------------------------

    async def _dispatch(self, role: RoleName, within: timedelta) -> bool:
        """Sends for an agent and waits until somebody has the floor; False if nobody came in time."""
        if self.coming > timedelta(0):
            within, self.coming = self.coming, timedelta(0)
        else:
            await self._record("takeover", role)
            await self.fleet.claim(self.lost.agent, dispatched=within)
            try:
                await self.server.bring(role, self.lost.room_name, tenant=self.lost.tenant, instead_of=self.lost.agent)
            except DispatchFailed as failure:
                logger.warning("a replacement could not be dispatched: %s", failure)
                await asyncio.sleep(SILENCE_AGAIN)
                return await self._held()
        try:
            async with asyncio.timeout(within.total_seconds()):
                async for state in self.room.floor.watch():
                    if state.holder is not None:
                        METRICS.takeover("dispatched", time.monotonic() - self.began)
                        return True
        except TimeoutError:
            pass
        return False

    async def _replacements(self) -> int:
        """How many other agents were replaced here within the window, in however many attempts."""
        recent = await self.room.events.recent(self.policy.window)
        return len({event.agent for event in recent if event.kind == "takeover"} - {self.lost.agent})

    async def _give_up(self, why: str) -> None:
        """Nobody comes. Whoever is left in the room, of any role, is asked to tell the caller."""
        logger.error("a call is given up: %s", why)
        METRICS.takeover("given up", time.monotonic() - self.began)
        await self._record("give_up", self.lost.role, why)
        for member in await self.room.roster.members():
            if member.alive and member.state is MemberState.STANDBY:
                try:
                    await self.room.floor.pass_to(
                        member.agent, member.process, role=member.role, reason=f"{GIVE_UP}{why}"
                    )
                except NotPresent:
                    continue
                return

    async def _record(self, kind: str, role: str, reason: str = "") -> None:
        await self.room.events.publish(kind, agent=self.lost.agent, role=role, reason=reason or self.reason)
