"""The assistant's worker delivers what earlier calls left, though no call comes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from livekit.agents import AgentServer

from agents.solo.server import SoloServer
from coordination.persistence.outbox.file import FileOutbox
from tests.persistence.service import TOKEN, serving
from tests.persistence.test_outbox import turn


async def _waits(_: AgentServer, **__: object) -> None:
    await asyncio.Event().wait()


async def test_what_a_killed_job_left_is_delivered_without_another_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as service:
        monkeypatch.setenv("BATON_BACKEND_URL", service.url)
        monkeypatch.setenv("BATON_BACKEND_TOKEN", TOKEN)
        monkeypatch.setenv("BATON_OUTBOX_FILE", str(tmp_path / "outbox.sqlite3"))
        monkeypatch.setattr(AgentServer, "run", _waits)  # no LiveKit: what runs beside it is looked at
        left = await FileOutbox(tmp_path / "outbox.sqlite3").open()
        await left.append(turn("call-7", "left behind"))
        await left.close()

        running = asyncio.create_task(SoloServer().run())
        async with asyncio.timeout(20):
            while "call-7" not in service.saved:
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert len(service.saved["call-7"]) == 1


async def test_an_outbox_that_cannot_be_opened_keeps_no_call_from_coming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("BATON_BACKEND_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BATON_OUTBOX_FILE", str(tmp_path / "taken" / "outbox.sqlite3"))
    ran = asyncio.Event()

    async def run(_: AgentServer, **__: object) -> None:
        ran.set()

    monkeypatch.setattr(AgentServer, "run", run)
    await SoloServer().run()

    assert ran.is_set()
    assert "nothing of a call will be saved" in caplog.text
