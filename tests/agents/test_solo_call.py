"""The assistant that works alone, where there is no Redis and nowhere to go but LiveKit and backend."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from livekit import api

from agents.demo import find_scenario
from agents.saved import USER, Ledger, NoWatch, judged
from coordination.dev import DevStack, WorkerSpec
from coordination.dev.backend import BackendServer
from coordination.livekit.record import SessionRecord
from coordination.testing.calls import HandoffTiming
from coordination.testing.runner import run_scenario
from coordination.testing.scenario import Scenario

CHECKOUT = Path(__file__).parents[2]
ALONE = Path(__file__).with_name("alone")


SHORT = """
name: short
first: solo
steps:
  - expect: {from: solo}
  - say: What is my account balance?
  - expect: {from: solo}
"""


class Board(NoWatch):
    """Reads the room's metadata at the end of the call, before the room is deleted."""

    def __init__(self, stack: DevStack) -> None:
        super().__init__()
        self._livekit, self._room = stack.livekit, ""
        self.metadata: dict[str, Any] = {}

    async def start(self, *, room: str, sid: str) -> None:
        await super().start(room=room, sid=sid)
        self._room = room

    async def committed(self) -> Sequence[HandoffTiming]:
        at = self._livekit
        async with api.LiveKitAPI(at.url, at.api_key, at.api_secret) as client:
            rooms = await client.room.list_rooms(api.ListRoomsRequest(names=[self._room]))
        self.metadata = json.loads(rooms.rooms[0].metadata)
        return ()


@pytest.mark.parametrize(("form", "scenario"), [("hybrid", find_scenario("solo")), ("livekit", Scenario.parse(SHORT))])
async def test_the_whole_call_is_kept_and_nothing_else_was_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, scenario: Scenario
) -> None:
    """Both forms save each message; the one that keeps its state in LiveKit alone has it on the board as well."""
    monkeypatch.chdir(CHECKOUT)
    refused = tmp_path / "refused"
    backend = BackendServer()
    environment = {
        "PYTHONPATH": str(ALONE),
        "REFUSED": str(refused),
        "BATON_SOLO_FORM": form,
        "BATON_PROVIDERS": "offline",
        "BATON_OUTBOX_FILE": str(tmp_path / "outbox.sqlite3"),
    }
    worker = WorkerSpec(
        target="agents.solo.agent", name="solo", environment=environment, drain_timeout=timedelta(seconds=10)
    )
    async with DevStack([worker], redis=False, backend=backend, directory=tmp_path / "logs") as stack:
        ledger, watch = Ledger(backend), Board(stack)
        await ledger.introduce()
        outcome = await run_scenario(
            scenario,
            url=stack.livekit.url,
            api_key=stack.livekit.api_key,
            api_secret=stack.livekit.api_secret,
            watch=watch,
            session=SessionRecord(user=USER),
        )
        report = judged(outcome.report, await ledger.compare(watch.sid, outcome.findings.call))
        await ledger.close()

    assert report.ok, report.to_json()
    assert report.saved is not None
    assert report.saved.participants == 1
    agent = [row.text for row in report.saved.rows if row.speaker == "agent"]
    assert any("74 euros and 90 cents" in text for text in agent), "the balance is the backend's"
    board = watch.metadata.get("solo", {})
    if form == "hybrid":
        assert agent[0].startswith("Hello Ann.")
        assert board == {}
    else:
        assert [message["text"] for message in board["messages"]] == [row.text for row in report.saved.rows]
        assert "caller" in board["participants"]
    assert not refused.exists(), refused.read_text()


async def test_its_worker_needs_nothing_that_needs_redis(tmp_path: Path) -> None:
    """What is imported by mistake is named at once, and not by a worker that ends at start."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import agents.solo.agent",
        cwd=CHECKOUT,
        env={"PYTHONPATH": str(ALONE), "REFUSED": str(tmp_path / "refused")},
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()

    assert process.returncode == 0, complaint.decode()
    assert not (tmp_path / "refused").exists()


async def test_a_guard_that_refuses_nothing_would_prove_nothing(tmp_path: Path) -> None:
    script = "try:\n import redis\nexcept ImportError: pass\nimport socket\nsocket.create_connection(('127.0.0.1', 9))"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        env={"PYTHONPATH": str(ALONE), "REFUSED": str(tmp_path / "refused")},
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()

    assert b"is out of reach here" in complaint
    assert (tmp_path / "refused").read_text().splitlines() == ["import redis", "connect ('127.0.0.1', 9)"]
