"""`CoordinatedServer`: an `AgentServer` whose agents share calls with agents of other workers.

Same verbs and options as LiveKit's: `start` and `dev` run coordinated, `console` and `connect` without coordination.
What runs beside the jobs in the worker's main process is a `WorkerPart` each.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, overload

from livekit.agents import AgentServer, JobContext, JobExecutorType
from livekit.agents.worker import ServerEnvOption

from coordination.errors import InvalidArgument, RoleTaken
from coordination.ids import WorkerId
from coordination.livekit.join import WORKER_ID
from coordination.livekit.worker_http import WorkerHttp

logger = logging.getLogger(__name__)

Entrypoint = Callable[[JobContext], Awaitable[None]]

JOBS_PER_CORE = 6
"""A voice agent's job takes a sixth of a core while somebody speaks, and about 50 MB: enough for a cautious default."""
METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
COORDINATION = "BATON_COORDINATION"
_PRELOADED = ("coordination.livekit.session", "coordination.livekit.handoff", "coordination.livekit.seat")
"""Imported once for all job processes: a late import stalls a live event loop by 100 ms and more."""


class WorkerPart(Protocol):
    """Something that runs in the worker's main process for as long as the worker does."""

    def running(self, server: CoordinatedServer) -> AbstractAsyncContextManager[None]:
        """Entered before the worker registers, left after its last job has ended."""
        ...

    async def drain(self) -> None:
        """Called on SIGTERM, before LiveKit waits for the jobs that are left."""
        ...


class CoordinatedEntrypoint:
    """The user's entrypoint as job processes run it. An object of an importable class, so that it can be pickled."""

    def __init__(self, entrypoint: Entrypoint) -> None:
        self.entrypoint = entrypoint

    async def __call__(self, ctx: JobContext) -> None:
        try:
            await self.entrypoint(ctx)
        except RoleTaken:
            # The session has shut the job down; a second agent of one role is no fault of the entrypoint.
            logger.info("another agent serves this role in the call; this job ends")


class CoordinatedServer(AgentServer):
    """An `AgentServer`; every option of it works, and `rtc_session` is used as always.

    - `max_jobs` bounds the calls of this worker, and `load_fnc` counts them (instead of CPU load, above
      which LiveKit would silently drop a dispatch that a handoff waits for). Give `load_fnc` to decide otherwise.
    - One job process waits idle in `dev`, too: a dispatched agent joins in 0.4 s instead of 1.5 s.
    """

    def __init__(
        self, *, max_jobs: int | None = None, parts: Sequence[WorkerPart] | None = None, **options: Any
    ) -> None:
        if max_jobs is not None and max_jobs < 1:
            raise InvalidArgument(f"max_jobs={max_jobs} leaves no room for a call: give at least 1.")
        self.max_jobs = max_jobs or JOBS_PER_CORE * (os.cpu_count() or 1)
        self.worker_id = WorkerId(f"worker-{secrets.token_hex(6)}")
        """This worker's own id; LiveKit's changes with each registration."""
        self._counts_jobs = options.get("load_fnc") is None
        if self._counts_jobs:
            options["load_fnc"] = count_jobs
            options.setdefault("load_threshold", ServerEnvOption(dev_default=math.inf, prod_default=1.0))
        options.setdefault(
            "num_idle_processes", ServerEnvOption(dev_default=1, prod_default=math.ceil(os.cpu_count() or 1))
        )
        options["preload_modules"] = [*_PRELOADED, *(options.get("preload_modules") or [])]
        super().__init__(**options)
        self._parts: tuple[WorkerPart, ...] = (WorkerHttp(), *(parts or ()))

    @overload
    def rtc_session(self, func: Entrypoint, **options: Any) -> Entrypoint: ...
    @overload
    def rtc_session(self, **options: Any) -> Callable[[Entrypoint], Entrypoint]: ...
    def rtc_session(
        self, func: Entrypoint | None = None, **options: Any
    ) -> Entrypoint | Callable[[Entrypoint], Entrypoint]:
        """As `AgentServer.rtc_session`. `agent_name` is also the agent's role."""

        def register(entrypoint: Entrypoint) -> Entrypoint:
            super(CoordinatedServer, self).rtc_session(CoordinatedEntrypoint(entrypoint), **options)
            return entrypoint

        return register(func) if func is not None else register

    async def run(self, *, devmode: bool = False, unregistered: bool = False) -> None:
        """As `AgentServer.run`. Job processes inherit what is set here: the worker's id, and whether to coordinate."""
        self._check_entrypoint()
        os.environ[WORKER_ID] = self.worker_id
        if unregistered:
            # `console` and `connect`: one agent alone, and perhaps no Redis anywhere.
            os.environ[COORDINATION] = "off"
        with _metrics_directory(self):
            async with AsyncExitStack() as running:
                for part in self._parts if not unregistered else ():
                    await running.enter_async_context(part.running(self))
                await super().run(devmode=devmode, unregistered=unregistered)

    async def drain(self, *arguments: Any, **options: Any) -> None:
        """As `AgentServer.drain`; what runs beside the jobs drains first."""
        for part in self._parts:
            await part.drain()
        await super().drain(*arguments, **options)

    @property
    def registered(self) -> bool:
        """Whether LiveKit knows this worker now and may send it calls."""
        return not self._closed and not self._connecting and self.id != "unregistered"

    def _get_effective_load(self) -> float:
        """Counts what was accepted and has not started yet like the rest; a burst of calls is no reason to refuse."""
        if not self._counts_jobs:
            return super()._get_effective_load()
        return (len(self.active_jobs) + self._reserved_slots) / self.max_jobs

    def _check_entrypoint(self) -> None:
        entrypoint = self._entrypoint_fnc
        if self._job_executor_type is JobExecutorType.THREAD or not isinstance(entrypoint, CoordinatedEntrypoint):
            return
        name = getattr(entrypoint.entrypoint, "__qualname__", "")
        if "<locals>" in name or "<lambda>" in name:
            raise InvalidArgument(
                f"The entrypoint {name!r} is defined inside a function, so no job process can import it: "
                "define it at the top level of its module."
            )


def count_jobs(server: AgentServer) -> float:
    """The share of `max_jobs` that is in use."""
    most = server.max_jobs if isinstance(server, CoordinatedServer) else JOBS_PER_CORE
    return len(server.active_jobs) / most


class _metrics_directory:  # noqa: N801  # used like a function
    """Gives the worker's job processes a directory of their own to count in; two workers in one wipe each other."""

    def __init__(self, server: CoordinatedServer) -> None:
        shared = os.environ.get(METRICS_DIR)
        self._before = shared
        self._path = (
            Path(shared) / server.worker_id if shared else Path(tempfile.gettempdir()) / f"baton-{server.worker_id}"
        )

    def __enter__(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.environ[METRICS_DIR] = str(self._path)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            os.environ.pop(METRICS_DIR, None)
        else:
            os.environ[METRICS_DIR] = self._before
        shutil.rmtree(self._path, ignore_errors=True)
