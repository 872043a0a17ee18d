"""One agent's place in a call: its membership, the floor while it has it, and what it does while it has not.

A seat is taken when the session starts and given up when it closes. In between one of three things is true: the agent
holds the floor; it prepares to take it over from a colleague; or it stands by, and steps in when the floor is left
without a holder. Losing the floor closes the gate before anything else happens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from livekit import rtc
from livekit.agents import JobContext

from coordination.errors import CoordinationError, GrantNotReplicated, RoleTaken, StoreError
from coordination.ids import AgentId, Fence, RoleName
from coordination.leases.lease import Lease, LossReason
from coordination.livekit.dispatch import RoomDispatcher
from coordination.livekit.entry import Continuation, Entry, EntryKind
from coordination.livekit.history import History
from coordination.livekit.keeping import RecordKeeper
from coordination.livekit.linking import CallWatch
from coordination.livekit.messages import FloorAnnouncement, FloorWitness, announce
from coordination.livekit.record import RoomRecord, SessionRecord
from coordination.livekit.relocation import Relocation
from coordination.livekit.room_events import on_room
from coordination.livekit.silence import RoomSilencer
from coordination.livekit.story import find_out
from coordination.livekit.succession import Succession
from coordination.livekit.target import Target
from coordination.livekit.turnlog import PROGRESS_EVERY, TurnWriter
from coordination.recovery.fleet import Fleet, FleetAgent
from coordination.room.members import MemberState
from coordination.room.roster import HEARTBEAT_EVERY, AgentRemoved, Membership

if TYPE_CHECKING:
    from coordination.coordinator import Room
    from coordination.livekit.handoff import Departure
    from coordination.livekit.join import JoinPlan
    from coordination.livekit.saving.shared import CallSaving
    from coordination.livekit.session import CoordinatedSession

logger = logging.getLogger(__name__)

STORE_AGAIN = 0.2
"""Seconds until what a standby waits for is looked at again, after Redis was away for longer than a call's patience."""

ENDED_ON_PURPOSE = frozenset(
    {
        rtc.DisconnectReason.CLIENT_INITIATED,
        rtc.DisconnectReason.DUPLICATE_IDENTITY,
        rtc.DisconnectReason.PARTICIPANT_REMOVED,
        rtc.DisconnectReason.ROOM_DELETED,
        rtc.DisconnectReason.ROOM_CLOSED,
    }
)
"""Why an agent is out of its room because somebody wanted it so. Otherwise its call may go on without it."""


class Seat:
    """Made by `coordination.livekit.join.take_seat`; closed by the session."""

    saving: CallSaving | None = None
    """This agent's share in saving the call; None without a backend."""

    def __init__(
        self,
        session: CoordinatedSession[Any],
        ctx: JobContext,
        room: Room,
        membership: Membership,
        plan: JoinPlan,
        silencer: RoomSilencer,
        fleet: Fleet,
        saving: CallSaving | None = None,
    ) -> None:
        self.session, self.ctx, self.room, self.membership, self.plan = session, ctx, room, membership, plan
        self.resources = AsyncExitStack()
        """What ends with the seat: the room, the silencer, this process's share in the coordinator."""
        self.agent: AgentId = plan.agent
        self.role: RoleName = plan.role
        self.lease: Lease | None = None
        self.departure: Departure | None = None
        """The handoff away from this agent that is under way."""
        self.leaving: Departure | None = None
        """The handoff that has moved the floor away, until this agent need not listen any more."""
        self._fleet = fleet
        record = RoomRecord(ctx.api, ctx.room.name)
        self.keeper = RecordKeeper(ctx.room, record, mine=self._session_record, spawn=self.spawn)
        self.dispatcher = RoomDispatcher(ctx.api, ctx.room.name)
        self.silencer = silencer
        self.saving = saving
        saver = saving.saver if saving is not None else None
        self.turns = TurnWriter(room.turns, agent=self.agent, role=self.role, saves=saver)
        self.history = History(room.turns, mine=self.turns.mine)
        self.target = Target(self)
        self.succession = Succession(self)
        self.call = CallWatch(ctx.room, session, grace=plan.settings.caller_grace, ended=self.leave)
        self._witness = FloorWitness(ctx.room, room.floor.witness)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[Callable[[], None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._returned = False
        """Whether this agent was away from the room for a moment, and may have been silenced in it."""
        self._cut_off = False
        """Whether the connection to the room is gone for good, and nobody wanted that."""

    @property
    def holds(self) -> bool:
        """Whether this agent may speak now; a local answer."""
        return self.lease is not None and self.lease.held

    # -- begin and end ----------------------------------------------------------------------------

    async def begin(self) -> None:
        """Takes the floor if the call has no holder and this agent was not sent to stand by; else stands by."""
        self._ends = [
            on_room(self.ctx.room, "reconnected", self._on_reconnected),
            on_room(self.ctx.room, "disconnected", self._on_disconnected),
            on_room(self.ctx.room, "participant_connected", self.succession.on_participant),
            on_room(self.ctx.room, "participant_connected", self._on_participant),
            self.silencer.watch(self.ctx.room),
            self.room.on_return(self._on_store_back),
        ]
        self.spawn(self._watch_membership(), "watch the membership")
        self.spawn(self._stay_on_registry(), "stay on the fleet's registry")
        self.spawn(Relocation(self).watch(), "move to another worker when asked to")
        self.call.begin(caller=self.plan.caller)
        self.keeper.begin()
        lease = None
        if not self.plan.stands_by:
            try:
                lease = await self.room.floor.try_request(self.agent, role=self.role)
            except GrantNotReplicated as fault:
                logger.warning("standing by until the floor can be granted: %s", fault)
        if lease is not None:
            story = Continuation(kind=EntryKind.TAKEOVER, from_role=self.role, reason="the agent is gone")
            await self.hold(lease, Entry(kind=EntryKind.TAKEOVER, continuation=story))
            await self.session.stage.settled()
        else:
            await self.stand_by()

    async def stand_by(self) -> None:
        """Hears and says nothing, and is ready for whatever gives it the floor."""
        self.session.go_silent()
        await self._show(MemberState.STANDBY)
        self.target.begin()
        self.succession.begin()

    async def _show(self, state: MemberState) -> None:
        """Tells the room what this agent does; while Redis is away that must keep it from nothing."""
        try:
            await self.membership.set_state(state)
        except StoreError as fault:
            logger.warning("the room learns with the next heartbeat that this agent is %s: %s", state, fault)

    def leave(self, reason: str) -> None:
        """Ends this agent's part in the call: the job shuts down, and with it the session and the seat."""
        logger.info("leaving the call: %s", reason)
        self.session.go_silent()
        self.spawn(self.close(), "leave the call")
        self.ctx.shutdown(reason)

    async def close(self) -> None:
        """Gives up floor, membership and room. Safe to call more than once; later calls wait for the first."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="baton: give up the seat")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._witness.close()
        self.call.close()
        self.keeper.close()
        self.target.close()
        for end in self._ends:
            end()
        current = asyncio.current_task()
        mine = [task for task in self._tasks if task is not current and not task.get_name().endswith("leave the call")]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        await self.turns.close()
        if self.saving is not None:
            over = self.lease is not None and self.call.over and not self._cut_off
            await self.saving.close(over=over, alone_for=self.call.alone_for)
        lease, self.lease = self.lease, None
        try:
            if lease is not None and self._cut_off:
                # Its caller may be there still: the watch over the fleet looks, and continues the call.
                await self._fleet.abandon(self.agent)
                await self.room.roster.remove(self.agent, reason="its connection to the room is lost")
            if lease is not None:
                await lease.release()
            await self.membership.leave()
            await self._fleet.leave(self.agent)
        except CoordinationError as fault:
            logger.warning("the seat was not given up cleanly: %s", fault)
        finally:
            await self.resources.aclose()

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Runs `work` for as long as the seat is held; a fault is logged and ends only that work."""
        task = asyncio.create_task(self._guarded(work, name), name=f"baton: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep(self, work: Callable[[], Coroutine[object, object, None]], name: str) -> asyncio.Task[None]:
        """As `spawn`, and again whenever Redis could not be used: a standby that gave up would never step in."""
        return self.spawn(self._repeated(work, name), name)

    async def _repeated(self, work: Callable[[], Coroutine[object, object, None]], name: str) -> None:
        while not self.holds:
            try:
                await work()
                return
            except StoreError as fault:
                logger.warning("could not %s, trying again: %s", name, fault)
                await asyncio.sleep(STORE_AGAIN)

    async def _guarded(self, work: Coroutine[object, object, None], name: str) -> None:
        try:
            await work
        except CoordinationError as fault:
            logger.warning("could not %s: %s", name, fault)
        except Exception:
            logger.exception("could not %s", name)

    # -- the floor --------------------------------------------------------------------------------

    async def hold(self, lease: Lease, entry: Entry) -> None:
        """The floor is granted: opens the gate for the agent that is on already, or is put on now."""
        self.target.end()
        self.succession.end()
        self.lease = lease
        self.turns.fence = Fence(lease.fence)
        lease.on_lost.append(self._on_lost)
        if lease.reason is not None:
            self._on_lost(lease)
            return
        if self._returned:
            # A grant that was on its way when this agent was silenced is read now, and is worth nothing by itself.
            self.room.floor.doubt(lease)
        if self.saving is not None:
            takeover = entry.kind is EntryKind.TAKEOVER
            self.spawn(self.saving.on_floor(takeover=takeover), "take the saving of the call into care")
        if entry.kind is EntryKind.TAKEOVER:
            await find_out(self, entry)
        if entry.opening is not None:
            # What needs no model need not wait for the history either.
            self.session.come_on(lease, entry)
            self.spawn(self._catch_up(entry.continuation), "read the conversation so far")
        else:
            await self._catch_up(entry.continuation)
            self.session.come_on(lease, entry)
        self.spawn(self._tell(lease), "announce the grant")
        self.spawn(self._report_progress(lease), "report how far an utterance is")

    async def _catch_up(self, continuation: Continuation | None) -> None:
        try:
            await self.history.catch_up(self.session.stage.front, self.session.history, continuation)
        except CoordinationError as fault:
            logger.warning("the conversation so far could not be read: %s", fault)

    async def _tell(self, lease: Lease) -> None:
        await announce(self.ctx.room, FloorAnnouncement(fence=Fence(lease.fence), agent=self.agent, role=self.role))
        await self._show(MemberState.HOLDER)
        await self.keeper.write()

    def _session_record(self) -> SessionRecord | None:
        """What the room's metadata are to say of the call, while this agent is the one to say it."""
        if self.lease is None or not self.lease.held:
            return None
        return SessionRecord(
            tenant=self.plan.tenant,
            caller=self.call.caller,
            session=self.room.name,
            conversation=self.plan.conversation,
            user=self.plan.user,
            role=self.role,
            fence=self.lease.fence,
        )

    async def _report_progress(self, lease: Lease) -> None:
        while lease.reason is None:
            await asyncio.sleep(PROGRESS_EVERY.total_seconds())
            if (said := self.session.being_said) is not None:
                self.turns.under_way(said.total_seconds())

    def _on_lost(self, lease: Lease) -> None:
        """Runs in the moment of the loss. From here on nothing of this agent may be heard."""
        if self.lease is not lease:
            return
        self.lease = None
        self.session.gate.close()
        self.session.fall_silent()
        if self._closing is None:
            self.spawn(self._after_loss(lease, time.time()), "stand by after the floor")

    async def _after_loss(self, lease: Lease, at: float) -> None:
        departure, self.departure = self.departure, None
        if departure is not None and lease.reason is LossReason.MOVED:
            self.leaving = departure
            try:
                await departure.finish_utterance(moved_at=at)
            finally:
                self.leaving = None
        self.turns.fence = None
        if self.saving is not None:
            self.spawn(self.saving.on_loss(lease.fence), "save what was being said")
        await self.stand_by()

    # -- still a member? --------------------------------------------------------------------------

    async def _stay_on_registry(self) -> None:
        """The registry says whose death concerns this call; an agent that is being replaced is not put back."""
        plan = self.plan
        entry = FleetAgent(
            agent=plan.agent,
            worker=plan.worker,
            process=self.membership.member.process,
            tenant=plan.tenant,
            room=self.room.name,
            room_name=self.ctx.room.name,
            role=plan.role,
            identity=plan.identity,
        )
        while self.membership.reason is None:
            try:
                if not await self._fleet.enter(entry):
                    self.leave("this agent was given up for lost, and is being replaced")
                    return
            except CoordinationError as fault:
                logger.debug("the fleet's registry could not be told: %s", fault)
            await asyncio.sleep(HEARTBEAT_EVERY.total_seconds())

    async def _watch_membership(self) -> None:
        await self.membership.lost.wait()
        self.leave(f"this agent is no longer a member of the call ({self.membership.reason})")

    def _on_participant(self, participant: rtc.RemoteParticipant) -> None:
        if self.saving is not None and self.holds:
            self.spawn(self.saving.on_participant(participant), "note a caller")

    def _on_store_back(self) -> None:
        if self.saving is not None and self.holds:
            self.spawn(self.saving.on_return(), "take the saving of the call into care again")

    def _on_reconnected(self) -> None:
        self._returned = True
        if self.lease is not None:
            # It may have been silenced and replaced: nothing of it may be heard before the store has vouched for it.
            self.room.floor.doubt(self.lease)
        self.spawn(self._ask_roster(), "ask the roster after a reconnect")

    def _on_disconnected(self, reason: int) -> None:
        self._cut_off = reason not in ENDED_ON_PURPOSE

    async def _ask_roster(self) -> None:
        """An agent that was away asks before anything else whether it was replaced, and ends if so."""
        try:
            gone = self.agent in await self.room.roster.removed()
        except (AgentRemoved, RoleTaken):
            gone = True
        if gone:
            self.leave("this agent was replaced while it was away")
