"""The registry of the fleet: which workers there are, and which agents they have in calls.

A room's roster says who is in a room; this says whose death concerns which rooms. Workers and agents prove by
heartbeats that they live, and each heartbeat restores what the server may have lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from coordination.errors import UnsupportedFormat
from coordination.ids import AgentId, ProcessId, RoleName, RoomName, Tenant, WorkerId, check_name
from coordination.room.clock import ms, us
from coordination.store import Script, Store
from coordination.store.keys import FLEET_TTL, FleetKeys

FORGOTTEN_AFTER: Final = timedelta(seconds=60)
"""A silent worker without agents is no longer listed after this."""
CLAIM_FOR: Final = timedelta(seconds=3)
"""How long a recovery is claimed without a renewal: whoever dies while it replaces an agent delays it by that."""

_ABANDONED: Final = "0"
"""In place of the moment of an agent's last heartbeat."""
_BEAT: Final = Script.load("fleet/beat")
_ENTER: Final = Script.load("fleet/enter")
_LEAVE: Final = Script.load("fleet/leave")
_ABANDON: Final = Script.load("fleet/abandon")
_READ: Final = Script.load("fleet/read")
_WORKERS: Final = Script.load("fleet/workers")
_CLAIM: Final = Script.load("fleet/claim")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAgent:
    """An agent in a call, as much of it as its replacement needs."""

    agent: AgentId
    worker: WorkerId
    process: ProcessId
    tenant: Tenant
    room: RoomName
    """What Redis knows the room by; in LiveKit its SID."""
    room_name: str
    """What the media server knows it by."""
    role: RoleName
    identity: str

    def dump(self) -> str:
        fields = ("worker", "process", "tenant", "room", "room_name", "role", "identity")
        return json.dumps({name: getattr(self, name) for name in fields}, ensure_ascii=False)

    @classmethod
    def load(cls, agent: str, text: str) -> FleetAgent:
        """Reads what `dump` wrote. Raises `UnsupportedFormat` for anything else."""
        try:
            stored: dict[str, Any] = json.loads(text)
            return cls(
                agent=AgentId(agent),
                worker=WorkerId(stored["worker"]),
                process=ProcessId(stored["process"]),
                tenant=Tenant(stored["tenant"]),
                room=RoomName(stored["room"]),
                room_name=stored["room_name"],
                role=RoleName(stored["role"]),
                identity=stored["identity"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UnsupportedFormat(
                f"The entry of agent {agent!r} in the fleet's registry cannot be read ({error!r}): it was written by "
                "an incompatible release. Run at most two adjacent releases side by side."
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """The registry at one moment."""

    workers: Mapping[WorkerId, timedelta] = field(default_factory=dict[WorkerId, timedelta])
    """How long each worker's main process has been silent."""
    agents: Mapping[AgentId, FleetAgent] = field(default_factory=dict[AgentId, FleetAgent])
    silent: Mapping[AgentId, timedelta] = field(default_factory=dict[AgentId, timedelta])
    """How long each agent has been silent itself."""
    abandoned: frozenset[AgentId] = frozenset()
    """Those that were given up for lost; they are not among the silent."""

    def of_worker(self, worker: WorkerId) -> Iterable[FleetAgent]:
        return (agent for agent in self.agents.values() if agent.worker == worker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to replace one lost agent."""

    coming: timedelta
    """For so long an agent that an earlier claimant dispatched may still come."""


class Fleet:
    """The registry, as one process sees it. All calls raise `StoreError` when Redis cannot be used."""

    def __init__(self, store: Store, process: ProcessId) -> None:
        self._store = store
        self._process = process
        self.keys: FleetKeys = store.keys.fleet()

    async def beat(self, worker: WorkerId) -> None:
        """Says that the worker's main process lives."""
        args = (check_name(worker, "worker"), ms(FLEET_TTL), us(FORGOTTEN_AFTER))
        await self._store.run(_BEAT, self.keys.all[:3], args)

    async def sign_off(self, worker: WorkerId) -> None:
        """Takes a worker off the registry that ends of its own will."""
        await self._store.command("ZREM", self.keys.workers, worker)

    async def enter(self, agent: FleetAgent) -> bool:
        """Enters an agent, or renews its entry; False if it is being replaced."""
        return bool(await self._store.run(_ENTER, self.keys.all, (agent.agent, agent.dump(), ms(FLEET_TTL))))

    async def leave(self, agent: AgentId, *, replaced: bool = False) -> bool:
        """Takes an agent off; False if it was not there, or is being replaced and does not say so."""
        return bool(await self._store.run(_LEAVE, self.keys.all, (agent, int(replaced))))

    async def abandon(self, agent: AgentId) -> bool:
        """Gives an agent up for lost whose process ends before its call; False if it is in no call.

        Any watcher takes its call up at its next look, also one that comes up minutes later.
        """
        return bool(await self._store.run(_ABANDON, self.keys.all, (agent, ms(FLEET_TTL))))

    async def agent(self, agent: AgentId) -> FleetAgent | None:
        """The entry of one agent; None if it is in no call."""
        text = await self._store.command("HGET", self.keys.agents, agent)
        return None if text is None else FleetAgent.load(agent, text.decode())

    async def tell(self, worker: WorkerId, command: str) -> bool:
        """Sends a command to a worker's main process; False if it does not listen."""
        return bool(await self._store.command("SPUBLISH", self.keys.of_worker(worker), command, key=self.keys.workers))

    async def claim(self, agent: AgentId, *, dispatched: timedelta | None = None) -> Claim | None:
        """Claims the recovery of an agent for `CLAIM_FOR`, or renews it; None if another process is at it.

        `dispatched` records that a replacement was sent for, and how long it may take.
        """
        args = (agent, self._process, us(CLAIM_FOR), us(dispatched) if dispatched else "", ms(FLEET_TTL))
        won, coming = await self._store.run(_CLAIM, self.keys.all, args)
        return Claim(coming=timedelta(microseconds=coming)) if won else None

    async def workers(self) -> Mapping[WorkerId, timedelta]:
        """How long each worker's main process has been silent."""
        now, workers = await self._store.run(_WORKERS, (self.keys.workers,))
        return {WorkerId(name): _since(now, score) for name, score in _pairs(workers)}

    async def read(self) -> FleetState:
        """All workers and agents."""
        now, workers, agents, beats = await self._store.run(_READ, self.keys.all[:3])
        entries = {AgentId(name): FleetAgent.load(name, text) for name, text in _pairs(agents)}
        heard = {AgentId(name): score for name, score in _pairs(beats) if name in entries}
        return FleetState(
            workers={WorkerId(name): _since(now, score) for name, score in _pairs(workers)},
            agents=entries,
            silent={agent: _since(now, score) for agent, score in heard.items() if score != _ABANDONED},
            abandoned=frozenset(agent for agent, score in heard.items() if score == _ABANDONED),
        )


def _pairs(flat: list[bytes]) -> Iterable[tuple[str, str]]:
    texts = [item.decode() for item in flat]
    return zip(texts[::2], texts[1::2], strict=True)


def _since(now: bytes, score: str) -> timedelta:
    return timedelta(microseconds=max(0, int(now) - int(float(score))))
