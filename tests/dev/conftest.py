"""Fixtures for tests of the development stack: real processes on loopback, and a way to see whether one is left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

ECHO_AGENT = """
from livekit.agents import AgentServer, JobContext

server = AgentServer()


@server.rtc_session(agent_name="{role}")
async def entry(ctx: JobContext) -> None:
    await ctx.connect()
    await ctx.room.local_participant.set_attributes({{"redis": __import__("os").environ["BATON_REDIS_URL"]}})
"""


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be reaped doesn't."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return not Path("/proc/self").exists()  # without /proc there is no telling a zombie: it counts as alive


def session_of(leader: int) -> set[int]:
    """The living processes of the session that `leader` opened (Linux)."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] not in ("Z", "X"):
                    found.add(int(entry.name))
    return found


@pytest.fixture
def write_agent(tmp_path: Path) -> Callable[[str], str]:
    """Factory of agent files: `write_agent("billing")` gives the path of an agent of that role."""

    def write(role: str, source: str = ECHO_AGENT) -> str:
        file = tmp_path / f"{role}_agent.py"
        file.write_text(source.format(role=role))
        return str(file)

    return write


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Factory of programs: the PATH is an empty folder, and `on_path("go", script)` puts a program there."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str = "exit 1") -> Path:
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    return put


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller's shell says about LiveKit and Redis does not reach these tests."""
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "BATON_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
