"""Who held the floor of a call, and from when to when, according to the grants and ends that were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from coordination.testing.history import FaultStruck, FloorEvent, History, Presence

_ENDS: Final = frozenset({"release", "expire", "revoke", "silence"})
_STAYS: Final = frozenset({"kill"})
"""Faults after which their victims hold nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """One agent's time with the floor."""

    agent: str
    at: float
    grant: FloorEvent
    until: float | None = None
    """When it ended: given back, taken away, moved, or the agent died or left. None if nothing says that it did."""
    usurped_by: FloorEvent | None = None
    """The grant to another agent that came while this one still held the floor."""

    @property
    def heard_until(self) -> float:
        return float("inf") if self.until is None else self.until


def grants(history: History, call: str) -> Sequence[FloorEvent]:
    """The grants of a call in order, each once, however many witnesses it has."""
    found: dict[tuple[int, str], FloorEvent] = {}
    repeated: list[FloorEvent] = []
    for event in history.of(FloorEvent, call=call):
        if event.kind != "grant":
            continue
        known = found.get((event.fence, event.agent))
        if known is None:
            found[event.fence, event.agent] = event
        elif event.source == "store" and known.source == "store":
            repeated.append(event)  # claimed again, from a server that had forgotten it
        elif event.source == "store":
            found[event.fence, event.agent] = replace(event, at=min(event.at, known.at))
    return sorted([*found.values(), *repeated], key=lambda event: event.at)


def tenures(history: History, call: str) -> Sequence[Tenure]:
    """The times with the floor, in order."""
    moved = {event.fence for event in history.of(FloorEvent, call=call) if event.kind == "commit"}
    ends = _ends(history, call)
    found: list[Tenure] = []
    for grant in grants(history, call):
        if found and found[-1].agent == grant.agent and found[-1].until is None:
            continue
        ended = min((at for at, agent, fence in ends if _of(grant, at, agent, fence)), default=None)
        if found and (found[-1].until is None or found[-1].until > grant.at):
            usurped = None if grant.fence in moved or found[-1].agent == grant.agent else grant
            found[-1] = replace(found[-1], until=grant.at, usurped_by=usurped)
        found.append(Tenure(agent=grant.agent, at=grant.at, grant=grant, until=ended))
    return found


def _of(grant: FloorEvent, at: float, agent: str, fence: int | None) -> bool:
    return agent == grant.agent and at >= grant.at and fence in (None, grant.fence)


def _ends(history: History, call: str) -> list[tuple[float, str, int | None]]:
    """What ends a tenure: moment, agent, and the fence where it is known."""
    found: list[tuple[float, str, int | None]] = [
        (event.at, event.agent, event.fence or None)
        for event in history.of(FloorEvent, call=call)
        if event.kind in _ENDS
    ]
    found += [
        (fault.at, agent, None)
        for fault in history.of(FaultStruck, call=call)
        if fault.kind in _STAYS
        for agent in fault.agents
    ]
    seen = [entry for entry in history.of(Presence, call=call) if entry.agent]
    # Who comes back was away because the media server was, and has kept its floor.
    back = {entry.who: entry.at for entry in seen if entry.present}
    left = [entry for entry in seen if not entry.present and back.get(entry.who, entry.at) <= entry.at]
    return found + [(entry.at, entry.who, None) for entry in left]
