"""What the assistant that works alone begins a call with, and what is left of the call afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from livekit import rtc
from livekit.agents import AutoSubscribe, JobContext, llm

from agents.solo.agent import save, solo
from agents.solo.call import Call
from coordination.dev.backend import BackendServer
from coordination.livekit.record import SessionRecord
from coordination.persistence import BackendClient, ConversationTurn, Speaker, Utterance
from tests.rooms.callers import calling
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.jobs import Job

SAID = 12


@pytest.fixture(scope="module")
def backend() -> Iterator[BackendServer]:
    with BackendServer() as server:
        yield server


async def test_it_begins_with_the_caller_and_the_last_ten_messages_and_leaves_a_record(
    make_room: RoomFactory, backend: BackendServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in backend.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BATON_OUTBOX_FILE", str(tmp_path / "outbox.sqlite3"))
    live = await make_room(metadata=SessionRecord(user="ann").format())
    headers = {"Authorization": f"Bearer {backend.token}"}
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as http:
        await http.put("/v1/users/ann", json={"name": "Ann", "preferences": {"plan": "fast"}})
        last_time = BackendClient()
        for number in range(SAID):
            words = (Utterance(speaker=Speaker.CALLER, text=f"word {number}"),)
            await last_time.save_conversation_turn("before", ConversationTurn(messages=words), room=live.name)
        await last_time.close()
        await live.join("caller")
        found: dict[str, Any] = {}

        async def entrypoint(ctx: JobContext) -> None:
            await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)
            call = Call(ctx, board=False)
            await call.begin()
            found["history"] = known(call.history())
            found["greeting"] = call.greeting("What can I do?")
            await call.end("the call is over")

        job = Job(live, "solo")
        job.start(entrypoint)
        await job.started()
        await job.close()
        record = (await http.get(f"/v1/sessions/{live.sid}")).json()

    assert found["greeting"] == "Hello Ann. What can I do?"
    assert found["history"]["preferences"] == {"plan": "fast"}
    assert [each["text"] for each in found["history"]["earlier"]] == [f"word {n}" for n in range(2, SAID)]
    assert (record["participants"], record["messages"], record["roles"]) == (1, 0, ["solo"])
    assert (record["user_id"], record["reason"]) == ("ann", "the call is over")


async def test_it_receives_the_voice_of_a_caller_and_no_picture(
    make_room: RoomFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that nobody looks at would be paid for, in bandwidth and in CPU time."""
    monkeypatch.setenv("BATON_PROVIDERS", "offline")
    monkeypatch.delenv("BATON_BACKEND_URL", raising=False)
    live = await make_room()
    async with calling(live) as caller:
        picture = rtc.LocalVideoTrack.create_video_track("camera", rtc.VideoSource(64, 64))
        await caller.room.local_participant.publish_track(picture)
        job = Job(live, "solo")
        job.start(solo)
        await job.started()

        def received() -> dict[str, bool]:
            tracks = job.rtc.remote_participants["caller"].track_publications.values()
            return {track.name: track.subscribed for track in tracks}

        await eventually(lambda: received().get("microphone") and "camera" in received(), "the voice is received")
        await asyncio.sleep(0.5)
        heard = received()
        await save(job.ctx)
        await job.close()

    assert heard == {"microphone": True, "camera": False}


def known(history: llm.ChatContext) -> dict[str, Any]:
    """What stands in the one message that the model begins with."""
    (message,) = history.messages()
    text = message.text_content or ""
    return json.loads(text[text.index("{") :])
