"""Announcements of the floor in a real room: an agent's counts, a pretended one has no effect."""

from __future__ import annotations

import asyncio
import json
import time

from livekit import api, rtc

from coordination.ids import AgentId, Fence, RoleName
from coordination.livekit.messages import FLOOR_TOPIC, FloorAnnouncement, FloorWitness, Refusal, announce
from tests.rooms.ears import eventually
from tests.rooms.rig import RoomFactory


def fence_now() -> Fence:
    return Fence(int(time.time() * 1_000_000))


async def test_a_grant_that_an_agent_announces_is_heard_by_the_other_agents(make_room: RoomFactory) -> None:
    room = await make_room()
    holder, other = await room.join("agent-A", kind="agent"), await room.join("agent-B", kind="agent")
    heard: list[tuple[Fence, AgentId]] = []
    witness = FloorWitness(other, lambda fence, agent: heard.append((fence, agent)))
    await eventually(lambda: "agent-A" in other.remote_participants, "they see each other")
    fence = fence_now()

    await announce(holder, FloorAnnouncement(fence=fence, agent=AgentId("A"), role=RoleName("billing")))

    await eventually(lambda: heard == [(fence, "A")], "the grant is heard")
    assert set(witness.refused.values()) == {0}
    witness.close()
    witness.close()
    await announce(holder, FloorAnnouncement(fence=fence_now(), agent=AgentId("A")))
    await asyncio.sleep(0.1)
    assert len(heard) == 1


async def test_grants_that_callers_and_servers_pretend_have_no_effect(make_room: RoomFactory) -> None:
    room = await make_room()
    caller = await room.join("agent-pretended")
    agent = await room.join("agent-B", kind="agent")
    heard: list[Fence] = []
    witness = FloorWitness(agent, lambda fence, _: heard.append(fence))
    await eventually(lambda: "agent-pretended" in agent.remote_participants, "they see each other")
    pretended = FloorAnnouncement(fence=fence_now(), agent=AgentId("pretended"))

    await announce(caller, pretended)
    await room.api.room.send_data(api.SendDataRequest(room=room.name, data=pretended.encode(), topic=FLOOR_TOPIC))

    await eventually(lambda: witness.refused[Refusal.NO_AGENT] == 2, "both are refused")
    assert heard == []
    witness.close()


async def test_what_an_agent_sends_counts_only_if_it_is_readable_and_plausible(make_room: RoomFactory) -> None:
    room = await make_room()
    sender, agent = await room.join("agent-A", kind="agent"), await room.join("agent-B", kind="agent")
    heard: list[Fence] = []
    witness = FloorWitness(agent, lambda fence, _: heard.append(fence))
    await eventually(lambda: "agent-A" in agent.remote_participants, "they see each other")
    fence = fence_now()
    hour = 3600 * 1_000_000

    for payload in (
        b"\xff",
        json.dumps({"v": 2, "fence": fence, "agent": "A"}).encode(),
        json.dumps({"v": 1, "fence": fence + 2 * hour, "agent": "A"}).encode(),
        json.dumps({"v": 1, "fence": fence, "agent": "A", "later": "field"}).encode(),
    ):
        await sender.local_participant.publish_data(payload, topic=FLOOR_TOPIC)
    await sender.local_participant.publish_data(b"not ours", topic="another topic")

    await eventually(lambda: heard == [fence], "the one that is right is heard")
    assert witness.refused == {Refusal.NO_AGENT: 0, Refusal.UNREADABLE: 2, Refusal.IMPLAUSIBLE: 1}
    witness.close()


async def test_announcing_in_a_room_that_is_not_connected_does_nothing() -> None:
    await announce(rtc.Room(), FloorAnnouncement(fence=fence_now(), agent=AgentId("A")))
