"""Real worker processes for tests of what becomes of a call when one of them is killed or stopped.

`python -m tests.rooms.workers ROLE` is the worker; `WorkerProcess` starts one and knows the processes of its jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from livekit.agents import Agent, JobContext, RunContext, cli, function_tool, llm

from coordination.livekit import CoordinatedServer, CoordinatedSession, handoff_to
from tests.rooms.providers import QUICK_TURNS, Reply, RuleLLM, ToneSTT, ToneTTS, ToneVAD, last_user_text

ROLE = os.environ.get("TEST_ROLE", "receptionist")
ROLES = ("receptionist", "billing", "technical")
DIES_AT = os.environ.get("TEST_DIES_AT", "")
"""Where the agent's process kills itself: `prepare` (asked for its opening) or `answer` (while it thinks)."""
LONG = " ".join(["long"] * 60)
"""Seven seconds of speech: somebody to be stopped in mid-sentence."""
STORY = "The first part. " + " ".join(["second"] * 20) + ". " + " ".join(["third"] * 20) + ". The end"
"""The same in sentences: somebody to be finished by another."""

DRAINS_FOR = int(os.environ.get("TEST_DRAINS_FOR", "3600"))
"""Seconds that a worker waits for its calls when it is told to end."""

server = CoordinatedServer(host="127.0.0.1", port=0, num_idle_processes=1, drain_timeout=DRAINS_FOR)


def _left_unanswered(chat: llm.ChatContext) -> str:
    """The caller's last words, if the model is asked to answer these; a real one would find them itself."""
    messages = [item for item in chat.items if isinstance(item, llm.ChatMessage)]
    if not messages or "Answer what the caller said last" not in (messages[-1].text_content or ""):
        return ""
    return next((m.text_content or "" for m in reversed(messages) if m.role == "user"), "")


def _instruction(chat: llm.ChatContext) -> str:
    """What the model was told last."""
    last = next((item for item in reversed(chat.items) if isinstance(item, llm.ChatMessage)), None)
    return (last.text_content or "") if last is not None and last.role != "user" else ""


def rule(chat: llm.ChatContext) -> Reply:
    """Does as it is told: an apology that is asked for is made."""
    reply, told = _rule(chat), _instruction(chat)
    if "Apologise for that" in told:
        return Reply(text=f"{ROLE} apologises")
    _, asked, words = told.partition("Begin with: ")
    return Reply(text=f"{words} {reply.text}") if asked else reply


def _rule(chat: llm.ChatContext) -> Reply:
    text = last_user_text(chat) or _left_unanswered(chat)
    if DIES_AT == "answer" and text:
        os.kill(os.getpid(), signal.SIGKILL)
    for role in ROLES:
        if role in text.split() and role != ROLE:
            return Reply(tool="transfer", arguments=json.dumps({"role": role}))
    if "more" in text.split():
        return Reply(text=LONG)
    if "delta" in text.split():
        return Reply(text=STORY)
    return Reply(text=f"{ROLE} heard {text}" if text else f"{ROLE} goes on")


class WorkerAgent(Agent):
    def __init__(self) -> None:
        super().__init__(instructions=f"You are {ROLE}.")

    async def opening(self, handoff: object) -> str | None:
        if DIES_AT == "prepare":
            os.kill(os.getpid(), signal.SIGKILL)
        # So long that a caller can begin to speak before the agent is ready.
        await asyncio.sleep(0.6)
        return None

    async def on_enter(self) -> None:
        self.session.say(f"hello from {ROLE}")

    @function_tool
    async def transfer(self, context: RunContext[Any], role: str) -> str | None:
        """Hands the caller over."""
        return await handoff_to(context, role, summary=f"wants {role}", deadline=timedelta(seconds=3))


@server.rtc_session(agent_name=ROLE)
async def entrypoint(ctx: JobContext) -> None:
    served = Path(os.environ["TEST_FOLDER"]) / f"{ctx.room.name}.{ROLE}"
    writing = served.with_suffix(f".{ctx.job.id}")
    writing.write_text(f"{os.getpid()} {ctx.job.id} {os.environ['TEST_NAME']}")
    writing.rename(served)  # At once: a test may be reading it.
    session = CoordinatedSession[None](
        ctx,
        stt=ToneSTT(),
        llm=RuleLLM(rule),
        tts=ToneTTS(pitch=700.0 + 250.0 * ROLES.index(ROLE)),
        vad=ToneVAD(),
        turn_handling=QUICK_TURNS,
    )
    await session.start(agent=WorkerAgent(), room=ctx.room)


@dataclass(slots=True)
class WorkerProcess:
    """One worker; `environment` holds LiveKit's variables and Baton's. Registered when `start` returns."""

    role: str
    environment: Mapping[str, str]
    folder: Path
    dies_at: str = ""
    name: str = ""
    """Tells two workers of one role apart; the role, if there is one of it."""
    module: str = "tests.rooms.workers"
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> WorkerProcess:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        environment = {
            **os.environ,
            **self.environment,
            "TEST_ROLE": self.role,
            "TEST_DIES_AT": self.dies_at,
            "TEST_NAME": self.name or self.role,
            "TEST_FOLDER": str(self.folder),
            "BATON_HTTP_PORT": str(self.port),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, "start", "--log-level", "info"],
                cwd=Path(__file__).parents[2],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name or self.role}.log"

    @property
    def pid(self) -> int:
        """Of the worker's main process."""
        assert self._process is not None
        return self._process.pid

    def wait(self, *, within: float) -> int:
        """The exit status, once the worker has ended by itself."""
        assert self._process is not None
        return self._process.wait(timeout=within)

    def kill(self) -> None:
        """As when its host dies: the main process and all that it started, at once."""
        victims = [self.pid, *self.job_processes]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def ready(self) -> bool:
        """Whether the worker says so itself."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=1.0) as answer:
                return answer.status == 200
        except OSError:
            return False

    def metrics(self) -> str:
        """What the worker exports for all its processes."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5.0) as answer:
            return str(answer.read().decode())

    def job(self, room: str) -> tuple[int, str]:
        """The process and the id of the newest job of this role in a room."""
        pid, job, _ = (self.folder / f"{room}.{self.role}").read_text().split()
        return int(pid), job

    def serves(self, room: str) -> bool:
        """Whether the newest job of the role in that room is this worker's."""
        return (self.folder / f"{room}.{self.role}").read_text().split()[2] == (self.name or self.role)

    @property
    def job_processes(self) -> list[int]:
        """The processes that have a connection of a job or wait for one: all that the worker started."""
        assert self._process is not None
        return _descendants(self._process.pid)

    def stop(self) -> None:
        """Ends the worker at the end of the test, whatever became of it."""
        if self._process is not None and self._process.poll() is None:
            descendants = self.job_processes
            self._process.kill()
            self._process.wait(timeout=10)
            for pid in descendants:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(status.rsplit(")", 1)[1].split()[1])
    found: list[int] = []
    for pid in parents:
        ancestor: int | None = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root and pid != root:
            found.append(pid)
    return found


def wait_until_ready(workers: list[WorkerProcess], *, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    for worker in workers:
        while not worker.ready:
            assert time.monotonic() < deadline, f"{worker.role} is not ready: {worker.log.read_text()[-3000:]}"
            time.sleep(0.2)


if __name__ == "__main__":
    # The module under its own name: job processes import the entrypoint from there.
    from tests.rooms.workers import server as worker

    cli.run_app(worker)
