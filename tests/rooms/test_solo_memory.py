"""What the assistant that works alone begins a call with, and what is left of the call afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from livekit.agents import AutoSubscribe, JobContext, llm

from agents.solo.call import Call
from coordination.dev.backend import BackendServer
from coordination.livekit.record import SessionRecord
from coordination.persistence import BackendClient, ConversationTurn, Speaker, Utterance
from tests.rooms.conftest import RoomFactory
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


def known(history: llm.ChatContext) -> dict[str, Any]:
    """What stands in the one message that the model begins with."""
    (message,) = history.messages()
    text = message.text_content or ""
    return json.loads(text[text.index("{") :])
