"""Jobs without worker processes: a real participant of a real room, with the job context that a session expects.

What differs from a worker's job is the process around it: here it is the test's own. Tests of what becomes of
processes use real workers (`tests.rooms.workers`).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import create_autospec

from livekit import agents, rtc
from livekit.agents.ipc.inference_executor import InferenceExecutor
from livekit.agents.job import JobAcceptArguments, JobContext, JobExecutorType, JobProcess, RunningJobInfo
from livekit.protocol import agent as agent_pb
from livekit.protocol import models

from tests.rooms.rig import LiveRoom

Entrypoint = Callable[[JobContext], Awaitable[None]]


class Job:
    """One job: `ctx`, the agent's `identity`, and what ended it."""

    def __init__(self, room: LiveRoom, role: str, *, metadata: dict[str, Any] | str | None = None) -> None:
        self.id = f"AJ_{secrets.token_hex(6)}"
        self.identity = f"agent-{self.id}"
        self.role = role
        self.ended = asyncio.Event()
        self.reason = ""
        token = room.server.token(room.name, self.identity, kind="agent")
        job = agent_pb.Job(
            id=self.id,
            room=models.Room(sid=room.sid, name=room.name, metadata=room.created_with),
            agent_name=role,
            metadata=json.dumps(metadata) if isinstance(metadata, dict) else metadata or "",
        )
        info = RunningJobInfo(
            accept_arguments=JobAcceptArguments(name="", identity=self.identity, metadata=""),
            job=job,
            url=room.server.url,
            token=token,
            worker_id="worker-of-the-tests",
            fake_job=False,
        )
        self.rtc = rtc.Room()
        self.ctx = JobContext(
            proc=JobProcess(executor_type=JobExecutorType.THREAD, user_arguments=None, http_proxy=None),
            info=info,
            room=self.rtc,
            on_connect=lambda: None,
            on_shutdown=self._on_shutdown,
            inference_executor=create_autospec(InferenceExecutor),
        )
        self.ctx.__dict__["api"] = room.api
        self._task: asyncio.Task[None] | None = None

    def start(self, entrypoint: Entrypoint) -> None:
        self.rtc.on("disconnected", lambda *_: self._on_shutdown("room disconnected"))
        self._task = asyncio.create_task(self._run(entrypoint), name=f"job of {self.role}")

    async def started(self) -> None:
        """Returns when the entrypoint has; raises what it raised."""
        assert self._task is not None
        await self._task

    async def close(self) -> None:
        """Ends the job as a worker does: the session, then the shutdown callbacks, then the room."""
        if self._task is not None:
            if not self._task.done():
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        session = self.ctx._primary_agent_session
        if session is not None:
            await session.aclose()
        for callback in self.ctx._shutdown_callbacks:
            await callback(self.reason)
        if self.rtc.isconnected():
            await self.rtc.disconnect()
        await self.ctx._on_cleanup()

    async def _run(self, entrypoint: Entrypoint) -> None:
        token = agents.job._JobContextVar.set(self.ctx)
        try:
            await entrypoint(self.ctx)
        finally:
            agents.job._JobContextVar.reset(token)

    def _on_shutdown(self, reason: str) -> None:
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()
