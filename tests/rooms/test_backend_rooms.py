"""A room that the backend creates, and changes while the call goes on, as an agent in it sees it."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from livekit import rtc
from pydantic import BaseModel, SecretStr

from coordination.dev.backend import BackendServer
from coordination.livekit.record import RoomRecord, SessionRecord
from coordination.livekit.state import RoomState
from coordination.persistence import BackendClient, BackendRefused, PersistenceSettings
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer


class Preferences(BaseModel):
    language: str = "en"
    volume: int = 5


@pytest.fixture
def backend(livekit_server: LiveKitServer) -> Iterator[BackendServer]:
    with BackendServer(environment=livekit_server.environment) as server:
        yield server


@pytest.fixture
async def client(backend: BackendServer) -> AsyncIterator[BackendClient]:
    client = BackendClient(PersistenceSettings(backend_url=backend.url, backend_token=SecretStr(backend.token)))
    yield client
    await client.close()


async def test_what_the_backend_sets_before_and_during_a_call_is_seen_in_it_and_under_the_floors_fence(
    livekit_server: LiveKitServer, backend: BackendServer, client: BackendClient
) -> None:
    name = f"call-{secrets.token_hex(4)}"
    body = {"name": name, "user_id": "ann", "conversation_id": "case-17", "metadata": {"topic": "bill", "kept": 1}}
    await _post(backend, "/v1/rooms", body)
    guest = {"identity": "caller", "metadata": {"language": "de"}, "attributes": {"volume": "7"}}
    join = await _post(backend, f"/v1/rooms/{name}/tokens", guest)
    async with AsyncExitStack() as stack:
        agent = await _joined(stack, livekit_server.url, livekit_server.token(name, "agent-A", kind="agent"))
        await _joined(stack, join["url"], join["token"])
        state = stack.enter_context(RoomState(agent))
        await eventually(lambda: "caller" in state.remote, "the caller is seen")
        caller = state.remote["caller"]
        record = SessionRecord.parse(agent.metadata, room=name)
        assert record is not None
        assert (record.user, record.conversation, record.tenant) == ("ann", "case-17", backend.tenant)
        assert (caller.read(Preferences).language, caller.read_attributes(Preferences).volume) == ("de", 7)

        await client.update_participant(
            name, "caller", name="Ann", metadata={"language": "fr"}, attributes={"volume": "9"}
        )
        merged = await client.update_room_metadata(name, {"topic": None, "mood": "good"})

        assert merged == {"kept": 1, "mood": "good"} | {"baton": json.loads(agent.metadata)["baton"]}
        await eventually(lambda: json.loads(agent.metadata).get("mood") == "good", "the room's change arrives")
        await eventually(
            lambda: (
                (caller.name, caller.read(Preferences).language, caller.read_attributes(Preferences).volume)
                == ("Ann", "fr", 9)
            ),
            "the caller's changes arrive",
        )
        api = livekit_server.client()
        stack.push_async_callback(api.aclose)
        await RoomRecord(api, name).write(SessionRecord(fence=7))
        with pytest.raises(BackendRefused, match="fence"):
            await client.update_room_metadata(name, {"mood": "bad"}, fence=6)
        await client.update_room_metadata(name, {"mood": "better"}, fence=7)
        await eventually(lambda: json.loads(agent.metadata)["mood"] == "better", "the holder's change arrives")
        after = SessionRecord.parse(agent.metadata, room=name)
        assert after is not None
        assert (after.user, after.conversation, after.fence) == ("ann", "case-17", 7)


async def _post(backend: BackendServer, path: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {backend.token}", "Idempotency-Key": secrets.token_hex(8)}
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def _joined(stack: AsyncExitStack, url: str, token: str) -> rtc.Room:
    room = rtc.Room()
    await room.connect(url, token)
    stack.push_async_callback(room.disconnect)
    return room
