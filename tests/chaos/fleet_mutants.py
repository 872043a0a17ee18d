"""Ways to break Baton in a whole process, one function each: for processes that never speak to a media server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

from coordination.ids import AgentId, WorkerId
from coordination.leases.keeper import Keeper
from coordination.leases.lease import Lease
from coordination.ports import Silenced
from coordination.recovery.detector import Detector
from coordination.recovery.fleet import Claim, Fleet, FleetAgent, FleetState
from coordination.recovery.replacement import LostRoom, Replacement
from coordination.recovery.watcher import Watcher


class _Post:
    """A post that nobody gave away, so that everybody has it."""

    held = True

    async def release(self) -> None: ...


def two_watchers() -> None:
    """Each worker is the watcher, and each replaces whom it misses: neither the post nor the claim is asked for.

    One of the two alone changes nothing that a caller could notice: that is what there are two for.
    """

    async def serve(watcher: Any) -> None:
        await watcher._as_watcher(_Post())

    async def granted(_fleet: Fleet, _agent: AgentId, **_: timedelta) -> Claim:
        return Claim(coming=timedelta(0))

    replace(Watcher, "_serve", serve)
    replace(Fleet, "claim", granted)


def no_blip_guard() -> None:
    """Whoever has no subscription at one look is dead, and so are its agents."""

    def missing(
        _detector: Detector,
        _now: float,
        *,
        listening: Collection[WorkerId],
        silent: Mapping[WorkerId, object],
        **_: bool,
    ) -> frozenset[WorkerId]:
        return frozenset(silent) - frozenset(listening)

    async def all_of_them(_watcher: Watcher, suspects: Collection[WorkerId], state: FleetState) -> dict[AgentId, str]:
        return {each.agent: "its worker is dead" for worker in suspects for each in state.of_worker(worker)}

    replace(Detector, "observe", missing)
    replace(Watcher, "_lost_with", all_of_them)


def no_silencing() -> None:
    """The floor of a lost agent is freed, and the media server is not asked to silence it."""

    async def freed(_: Replacement, room: LostRoom, _silencer: object, lost: FleetAgent, reason: str) -> None:
        fence = await room.floor.condemn(lost.agent, reason=reason)
        await room.roster.remove(lost.agent, reason=reason)
        if fence is not None:
            await room.floor.free(fence, Silenced.REMOVED)

    replace(Replacement, "_silence", freed)


def gate_always_open() -> None:
    """Once it had the floor, an agent speaks for ever."""
    # Here, because the watch over the fleet knows nothing of LiveKit.
    from coordination.livekit.gate import Gate

    def nothing(_: Gate) -> None:
        pass

    replace(Gate, "is_open", property(lambda gate: gate.lease is not None))
    replace(Gate, "close", nothing)


def fence_ignored() -> None:
    """A holder takes no notice of a higher fence, neither in the room nor in what the server answers."""

    def won(keeper: Any, lease: Lease, _reply: object, sent_at: float, _doubts: int) -> bool:
        lease.deadline = sent_at + lease.request.ttl.total_seconds()
        keeper._schedule_renewal(lease)
        return True

    def unmoved(_keeper: Keeper, _lease: Lease, _fence: int) -> None:
        pass

    replace(Keeper, "_read_renewal", won)
    replace(Keeper, "doubt", unmoved)


def renewal_never_stops() -> None:
    """A lease that was given back is renewed for ever."""

    async def forgotten(_keeper: Keeper, _lease: Lease) -> bool:
        return True

    replace(Keeper, "release", forgotten)


FLEET_MUTANTS: dict[str, Callable[[], None]] = {
    "gate always open": gate_always_open,
    "fence ignored": fence_ignored,
    "no silencing": no_silencing,
    "two watchers": two_watchers,
    "no blip guard": no_blip_guard,
    "renewal never stops": renewal_never_stops,
}


def replace(owner: Any, name: str, value: object) -> None:
    assert hasattr(owner, name), f"{owner.__name__} has no {name} any more: the mutant mutates nothing"
    setattr(owner, name, value)
