"""The watch over the fleet: one worker is the watcher, another its deputy.

Both look twenty times a second which workers are subscribed to their channels. The watcher acts on what it sees; the
deputy watches the watcher, and takes its post away when it is dead. Two leases decide who is what: an old watcher that
wakes up after a pause finds its lease lost before it acts, and each recovery is claimed besides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import Final

from coordination.errors import CoordinationError, StoreError
from coordination.ids import AgentId, ProcessId, RoleName, WorkerId, new_request_id
from coordination.leases.engine import LeaseEngine
from coordination.leases.lease import Lease
from coordination.leases.request import LeaseRequest
from coordination.recovery.detector import Detector
from coordination.recovery.fleet import Fleet, FleetAgent, FleetState
from coordination.store.keys import LeaseKeys
from coordination.store.scripts import Script

logger = logging.getLogger("coordination.recovery")

TICK: Final = 0.05
WATCHER_TTL: Final = timedelta(seconds=2)
DEPUTY_TTL: Final = timedelta(seconds=3)
HANG_LOOK_EVERY: Final = 0.5

_REVOKE: Final = Script.load("lease/revoke")

Recover = Callable[[FleetAgent, str], Awaitable[None]]


class Watcher:
    """One worker's part in the watch: waits for a post, fills it, and waits again when it has lost it."""

    def __init__(
        self, fleet: Fleet, engine: LeaseEngine, worker: WorkerId, recover: Recover, *, hang_limit: timedelta
    ) -> None:
        """`recover` is called for each agent that is lost, with the reason; again while it stays on the registry.

        An agent that has been silent for `hang_limit` is lost although its process lives: its event loop is blocked.
        """
        self._fleet, self._engine, self._worker, self._recover = fleet, engine, worker, recover
        self._hang_limit = hang_limit
        self._detector = Detector()
        self._recoveries: dict[AgentId, asyncio.Task[None]] = {}
        self._hangs_seen_at = 0.0
        self.watching = False
        """Whether this worker is the watcher now."""

    async def run(self) -> None:
        """Runs until it is cancelled."""
        try:
            while True:
                try:
                    await self._serve()
                except StoreError as error:
                    logger.warning("the watch over the fleet pauses: %s", error)
                    await asyncio.sleep(TICK)
        finally:
            running = list(self._recoveries.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _serve(self) -> None:
        deputy = await self._engine.acquire(self._request("deputy", DEPUTY_TTL), None)
        try:
            post = await self._as_deputy(deputy)
        finally:
            await deputy.release()
        if post is not None:
            await self._as_watcher(post)

    def _request(self, post: str, ttl: timedelta) -> LeaseRequest:
        return LeaseRequest(
            resource=f"the post of {post}",
            kind="lock",
            keys=self._fleet.keys.post(post),
            id=new_request_id(),
            agent=AgentId(self._worker),
            process=ProcessId(self._engine.process),
            role=RoleName(post),
            ttl=ttl,
        )

    async def _as_deputy(self, deputy: Lease) -> Lease | None:
        """Waits for the watcher's post, and takes it from a dead one. None if the own post is lost first."""
        asking = asyncio.create_task(
            self._engine.acquire(self._request("watcher", WATCHER_TTL), None), name="baton: ask for the watch"
        )
        try:
            while deputy.held:
                await asyncio.wait([asking], timeout=TICK)
                if asking.done():
                    return asking.result()
                suspects = await self._suspects()
                if suspects:
                    await self._depose_watcher(suspects)
            return None
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    async def _depose_watcher(self, suspects: Collection[WorkerId]) -> None:
        keys = self._fleet.keys.post("watcher")
        fence, holder = await self._engine.store.command("HMGET", keys.lease, "f", "agent")
        if fence is not None and holder is not None and holder.decode() in suspects:
            logger.warning("the watcher is dead; its deputy takes over")
            await self._engine.store.run(
                _REVOKE, keys.keys, (keys.channel, keys.everyone, "0", int(fence), "the watcher is dead", "free")
            )

    async def _as_watcher(self, post: Lease) -> None:
        self.watching = True
        try:
            while post.held:
                await self._look(post)
                await asyncio.sleep(TICK)
        finally:
            self.watching = False
            await post.release()

    async def _look(self, post: Lease) -> None:
        suspects = await self._suspects()
        loop = asyncio.get_running_loop()
        if not suspects and loop.time() - self._hangs_seen_at < HANG_LOOK_EVERY:
            return
        self._hangs_seen_at = loop.time()
        state = await self._fleet.read()
        abandoned = dict.fromkeys(state.abandoned, "its process ends before its call")
        lost = {**abandoned, **self._hung(state), **await self._lost_with(suspects, state)}
        if not post.held:
            return
        for agent, reason in lost.items():
            self.recover(state.agents[agent], reason)

    @property
    def _settled(self) -> bool:
        """Whether this worker has been connected for long enough that what it sees is what there is."""
        return self._engine.settled(self._fleet.keys.post("watcher"))

    async def _suspects(self) -> frozenset[WorkerId]:
        silent = await self._fleet.workers()
        channels = {self._fleet.keys.of_worker(worker): worker for worker in silent}
        receivers = await self._engine.store.subscribers(list(channels)) if channels else {}
        listening = {worker for channel, worker in channels.items() if receivers.get(channel)}
        return self._detector.observe(
            asyncio.get_running_loop().time(), listening=listening, silent=silent, settled=self._settled
        )

    def _hung(self, state: FleetState) -> dict[AgentId, str]:
        """Agents whose process lives and whose event loop says nothing."""
        # Nobody can say anything while Redis is away, and after it an agent says so with its next heartbeat only. So
        # silence counts as far as this worker was connected itself to hear it.
        limit = self._hang_limit.total_seconds()
        if not self._engine.settled(self._fleet.keys.post("watcher"), after=limit):
            return {}
        return {
            agent: "its event loop is blocked" for agent, silence in state.silent.items() if silence >= self._hang_limit
        }

    async def _lost_with(self, suspects: Collection[WorkerId], state: FleetState) -> dict[AgentId, str]:
        """The agents that went with their worker: one that listens and renews its lease has outlived it."""
        agents = [agent for worker in suspects for agent in state.of_worker(worker)]
        if not agents:
            return {}
        rooms = {each.agent: self._engine.store.keys.room(each.room, each.tenant) for each in agents}
        channels = {each.agent: rooms[each.agent].of_process(each.process) for each in agents}
        receivers = await self._engine.store.subscribers(list(channels.values()))
        return {
            each.agent: "its worker is dead"
            for each in agents
            if not receivers.get(channels[each.agent]) or await self._let_expire(each, rooms[each.agent].floor)
        }

    async def _let_expire(self, agent: FleetAgent, floor: LeaseKeys) -> bool:
        """Whether the agent holds a floor that it has not renewed in time: a host that vanished closes no socket."""
        holder, until = await self._engine.store.command("HMGET", floor.lease, "agent", "until")
        if holder is None or until is None or holder.decode() != agent.agent:
            return False
        return int(until) < await self._engine.server_time(floor)

    def recover(self, agent: FleetAgent, reason: str) -> None:
        """Replaces an agent in the background, unless that is under way here."""
        if agent.agent in self._recoveries:
            return
        task = asyncio.create_task(self._guarded(agent, reason), name=f"baton: replace {agent.agent}")
        self._recoveries[agent.agent] = task
        task.add_done_callback(lambda _: self._recoveries.pop(agent.agent, None))

    async def _guarded(self, agent: FleetAgent, reason: str) -> None:
        try:
            await self._recover(agent, reason)
        except CoordinationError as error:
            logger.warning("a lost agent is not replaced yet: %s", error)
            await asyncio.sleep(TICK)
        except Exception:
            logger.exception("a lost agent could not be replaced")
            await asyncio.sleep(1.0)
