"""Agents on the registry of the fleet, for tests of what becomes of them."""

from __future__ import annotations

from coordination.coordinator import Coordinator
from coordination.ids import DEFAULT_TENANT, AgentId, RoleName, RoomName, Tenant, WorkerId
from coordination.recovery.fleet import FleetAgent


def fleet_agent(coordinator: Coordinator, name: str = "agent") -> FleetAgent:
    """An agent of the worker `worker`, in the process of this coordinator, that serves `call` as billing."""
    return FleetAgent(
        agent=AgentId(name),
        worker=WorkerId("worker"),
        process=coordinator.process,
        tenant=Tenant(DEFAULT_TENANT),
        room=RoomName("call"),
        room_name="call",
        role=RoleName("billing"),
        identity=f"agent-{name}",
    )
