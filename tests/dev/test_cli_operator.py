"""An operator's hand on a room that live agents are in: `baton agents` and `baton floor`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from coordination.coordinator import Coordinator, Room
from coordination.dev import EmbeddedValkey
from coordination.ids import AgentId, RoleName, WorkerId
from coordination.leases.lease import LossReason
from tests.dev.test_cli_commands import baton

ROOM = "call-7"
SOON = 10.0


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with EmbeddedValkey() as valkey:
        yield valkey.url


@pytest.fixture
async def room(url: str) -> AsyncIterator[Room]:
    """A room of tenant acme with billing and technical in it; nobody has the floor yet."""
    async with Coordinator.open(url) as coordinator:
        room = coordinator.room(ROOM, tenant="acme")
        for role in ("billing", "technical"):
            agent, worker = AgentId(f"{role}-1"), WorkerId("worker-1")
            await room.roster.join(agent=agent, role=RoleName(role), worker=worker, skills=("invoices",))
        yield room
        await room.close()


async def test_agents_lists_who_is_on_the_roster(url: str, room: Room) -> None:
    answer = await baton("agents", ROOM, "--tenant", "acme", "--redis-url", url, "--json")

    members = json.loads(answer.output)
    assert answer.status == 0
    assert sorted((each["agent"], each["role"], each["alive"]) for each in members) == [
        ("billing-1", "billing", True),
        ("technical-1", "technical", True),
    ]


async def test_a_room_that_nobody_is_in_has_a_status_of_its_own(url: str, room: Room) -> None:
    answer = await baton("agents", "call-8", "--redis-url", url)

    assert answer.status == 4
    assert "call-8" in answer.complaint


async def test_show_tells_who_holds_the_floor_and_who_waits(url: str, room: Room) -> None:
    lease = await room.floor.request(AgentId("billing-1"))
    waiting = asyncio.create_task(room.floor.request(AgentId("technical-1"), timeout=timedelta(seconds=30)))
    await asyncio.sleep(0.1)

    shown = await baton("floor", "show", ROOM, "--tenant", "acme", "--redis-url", url)
    told = await baton("floor", "show", ROOM, "--tenant", "acme", "--redis-url", url, "--json")

    assert (shown.status, told.status) == (0, 0)
    assert "billing-1" in shown.output
    assert "technical-1" in shown.output
    state = json.loads(told.output)
    assert (state["holder"], state["fence"]) == ("billing-1", lease.fence)
    assert [each["agent"] for each in state["queue"]] == ["technical-1"]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_revoke_takes_the_floor_from_its_holder(url: str, room: Room) -> None:
    lease = await room.floor.request(AgentId("billing-1"))

    answer = await baton("floor", "revoke", ROOM, "--tenant", "acme", "--redis-url", url, "--reason", "supervisor")

    await asyncio.wait_for(lease.lost.wait(), SOON)
    assert answer.status == 0
    assert lease.reason is LossReason.REVOKED
    assert (await room.floor.state()).holder is None


async def test_revoke_of_a_free_floor_says_so(url: str, room: Room) -> None:
    answer = await baton("floor", "revoke", ROOM, "--tenant", "acme", "--redis-url", url)

    assert answer.status == 1
    assert "Nobody held" in answer.output


async def test_grant_moves_the_floor_to_the_agent_of_a_role(url: str, room: Room) -> None:
    held = await room.floor.request(AgentId("billing-1"))
    request = room.floor.accept_grants(AgentId("technical-1"), role="technical")
    expecting = asyncio.create_task(room.floor.expect_grant(AgentId("technical-1"), request_id=request))

    answer = await baton("floor", "grant", ROOM, "technical", "--tenant", "acme", "--redis-url", url, "--json")

    granted = await asyncio.wait_for(expecting, SOON)
    told = json.loads(answer.output)
    assert answer.status == 0
    assert (told["agent"], told["fence"]) == ("technical-1", granted.fence)
    assert granted.fence > held.fence
    assert held.lost.is_set()


async def test_grant_to_an_agent_that_is_not_there_names_those_who_are(url: str, room: Room) -> None:
    answer = await baton("floor", "grant", ROOM, "sales", "--tenant", "acme", "--redis-url", url)

    assert answer.status == 4
    assert "billing (billing-1)" in answer.complaint


async def test_drain_asks_the_agents_of_a_room_to_leave(url: str) -> None:
    async with Coordinator.open(url) as coordinator:
        room = coordinator.room(ROOM, tenant="acme")
        members = [
            await room.roster.join(agent=AgentId(f"{role}-1"), role=RoleName(role), worker=WorkerId("worker-1"))
            for role in ("billing", "technical")
        ]
        answer = await baton(
            "agents", "drain", ROOM, "--agent", "billing", "--tenant", "acme", "--redis-url", url, "--json"
        )
        async with asyncio.timeout(SOON):
            await members[0].asked_to_leave.wait()

        assert (answer.status, json.loads(answer.output)) == (0, {"asked": ["billing-1"]})
        assert not members[1].asked_to_leave.is_set()
        await room.close()


async def test_drain_of_a_worker_reaches_it_and_says_when_there_is_none(url: str) -> None:
    told: list[str] = []
    worker = WorkerId("worker-1")
    async with Coordinator.open(url) as coordinator, coordinator.presence(worker, told.append).kept():
        listed = await baton("workers", "--redis-url", url, "--json")
        answer = await baton("agents", "drain", "--worker", worker, "--redis-url", url)
        nobody = await baton("agents", "drain", "--worker", "worker-2", "--redis-url", url)

    assert [entry["worker"] for entry in json.loads(listed.output)] == [worker]
    assert (answer.status, told) == (0, ["drain"])
    assert nobody.status == 4
    assert "worker-1" in nobody.complaint


async def test_drain_wants_a_room_or_a_worker_and_not_both(url: str) -> None:
    answer = await baton("agents", "drain", "--redis-url", url)

    assert answer.status == 2
