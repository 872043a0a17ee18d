"""Which primary of a Cluster owns which slot: one node's view of it, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from coordination.errors import StoreUnavailable
from coordination.store import faults
from coordination.store.endpoint import Endpoint
from coordination.store.inquiry import ask

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Of a node."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one node believes."""

    healthy: bool
    epoch: int
    """Grows with each failover and each slot that moves: of two views the one with the larger is the newer."""
    owners: tuple[Address | None, ...]
    """By slot."""
    nodes: frozenset[Address]
    """Replicas included: whom else one can ask."""

    @property
    def rank(self) -> tuple[bool, int]:
        return self.healthy, self.epoch

    @property
    def primaries(self) -> frozenset[Address]:
        return frozenset(owner for owner in self.owners if owner is not None)


def slot_of(key: str | bytes) -> int:
    return key_slot(key.encode() if isinstance(key, str) else key)


async def ask_view(endpoint: Endpoint, within: float) -> View:
    """The view of the node. Raises `StoreRefused` (no Cluster at all, no rights) or `StoreUnavailable`."""
    slots, info = await ask(endpoint, ("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"), within=within)
    if isinstance(slots, Exception):
        raise faults.refused(slots, endpoint.label) from slots
    owners: list[Address | None] = [None] * SLOTS
    nodes: set[Address] = set()
    for first, last, *members in slots:
        found = [_address(member, endpoint.host) for member in members]
        nodes.update(found)
        owners[int(first) : int(last) + 1] = [found[0]] * (int(last) - int(first) + 1)
    if not nodes:
        raise StoreUnavailable(f"The Redis Cluster at {endpoint.label} has no slots assigned yet: create it first.")
    facts = _facts(info)
    return View(
        healthy=facts.get("cluster_state", "ok") == "ok",
        epoch=int(facts.get("cluster_current_epoch", 0)),
        owners=tuple(owners),
        nodes=frozenset(nodes),
    )


def read_redirection(error: str, asked: str) -> tuple[int, Address] | None:
    """Slot and address of a MOVED or ASK; a node that does not know its own name leaves the host out."""
    try:
        _, slot, place = error.split(" ")[:3]
        host, _, port = place.rpartition(":")
        return int(slot), Address(host if host not in ("", "?") else asked, int(port))
    except ValueError:
        return None


def _address(member: Any, asked: str) -> Address:
    host: bytes | None = member[0]
    return Address(host.decode() if host and host != b"?" else asked, int(member[1]))


def _facts(info: Any) -> dict[str, str]:
    """The lines of CLUSTER INFO; none where it is not allowed."""
    if not isinstance(info, bytes):
        return {}
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
