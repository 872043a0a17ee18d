"""Ways to break the watch over the fleet, and the keeping of leases: for processes that never speak to LiveKit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

from coordination.ids import AgentId, WorkerId
from coordination.leases.keeper import Keeper
from coordination.leases.lease import Lease
from coordination.recovery.detector import Detector
from coordination.recovery.fleet import Claim, Fleet, FleetState
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


def renewal_never_stops() -> None:
    """A lease that was given back is renewed for ever."""

    async def forgotten(_keeper: Keeper, _lease: Lease) -> bool:
        return True

    replace(Keeper, "release", forgotten)


FLEET_MUTANTS: dict[str, Callable[[], None]] = {
    "two watchers": two_watchers,
    "no blip guard": no_blip_guard,
    "renewal never stops": renewal_never_stops,
}


def replace(owner: Any, name: str, value: object) -> None:
    assert hasattr(owner, name), f"{owner.__name__} has no {name} any more: the mutant mutates nothing"
    setattr(owner, name, value)
