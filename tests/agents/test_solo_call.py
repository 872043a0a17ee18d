"""The assistant that works alone, where there is no Redis and nowhere to go but LiveKit and backend."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from agents.demo import find_scenario
from agents.saved import USER, Ledger, NoWatch, judged
from coordination.dev import DevStack, WorkerSpec
from coordination.dev.backend import BackendServer
from coordination.livekit.record import SessionRecord
from coordination.testing.runner import run_scenario

CHECKOUT = Path(__file__).parents[2]
ALONE = Path(__file__).with_name("alone")


async def test_the_whole_call_is_in_the_database_and_nothing_else_was_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    scenario, refused = find_scenario("solo"), tmp_path / "refused"
    backend = BackendServer()
    environment = {
        "PYTHONPATH": str(ALONE),
        "REFUSED": str(refused),
        "BATON_SOLO_FORM": "hybrid",
        "BATON_PROVIDERS": "offline",
        "BATON_OUTBOX_FILE": str(tmp_path / "outbox.sqlite3"),
    }
    worker = WorkerSpec(
        target="agents.solo.agent", name="solo", environment=environment, drain_timeout=timedelta(seconds=10)
    )
    async with DevStack([worker], redis=False, backend=backend, directory=tmp_path / "logs") as stack:
        ledger, watch = Ledger(backend), NoWatch()
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
    assert agent[0].startswith("Hello Ann.")
    assert not refused.exists(), refused.read_text()


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
