"""`CoordinatedServer`: an `AgentServer` whose agents share calls with agents of other workers.

Same verbs and options as LiveKit's: `start` and `dev` run coordinated, `console` and `connect` without coordination.
What runs beside the jobs in the worker's main process is a `WorkerPart` each.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, overload

from livekit.agents import AgentServer, JobContext, JobExecutorType
from livekit.agents.worker import ServerEnvOption

from coordination.errors import InvalidArgument, RoleTaken
from coordination.ids import WorkerId
from coordination.livekit.admission import CallAdmission
from coordination.livekit.door import CallDoor
from coordination.livekit.join import WORKER_ID
from coordination.livekit.lobby import wait_in_lobby
from coordination.livekit.saving.leftovers import Leftovers
from coordination.livekit.spares import Spares
from coordination.livekit.worker_http import WorkerHttp
from coordination.livekit.worker_watch import WorkerWatch
from coordination.settings import CoordinatorSettings

logger = logging.getLogger(__name__)

Entrypoint = Callable[[JobContext], Awaitable[None]]

JOBS_PER_CORE = 6
"""A voice agent's job takes a sixth of a core while somebody speaks, and about 50 MB: enough for a cautious default."""
METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
COORDINATION = "BATON_COORDINATION"
DRAIN = "drain"
"""The command on a worker's channel."""
_PRELOADED = tuple(f"coordination.livekit.{module}" for module in ("warm", "session", "handoff", "seat"))
"""Imported once for all job processes: a late import stalls a live event loop by 100 ms and more."""


class WorkerPart(Protocol):
    """Something that runs in the worker's main process for as long as the worker does."""

    def running(self, server: CoordinatedServer) -> AbstractAsyncContextManager[None]:
        """Entered before the worker registers, left after its last job has ended."""
        ...

    async def drain(self) -> None:
        """Called on SIGTERM, while LiveKit waits for the jobs that are left; cancelled when none is."""
        ...


class CoordinatedEntrypoint:
    """The user's entrypoint as job processes run it. An object of an importable class, so that it can be pickled."""

    def __init__(self, entrypoint: Entrypoint, admission: CallAdmission | None = None) -> None:
        self.entrypoint, self.admission = entrypoint, admission

    async def __call__(self, ctx: JobContext) -> None:
        if self.admission is not None and not await wait_in_lobby(ctx, self.admission):
            return
        try:
            await self.entrypoint(ctx)
        except RoleTaken:
            # The session has shut the job down; a second agent of one role is no fault of the entrypoint.
            logger.info("another agent serves this role in the call; this job ends")


class CoordinatedServer(AgentServer):
    """An `AgentServer`; every option of it works, and `rtc_session` is used as always.

    - `max_jobs` bounds the calls of this worker, and `load_fnc` counts them (instead of CPU load, above
      which LiveKit would silently drop a dispatch that a handoff waits for). Give `load_fnc` to decide otherwise.
    - `admission` bounds the calls of each tenant over the whole cluster, and says what becomes of those above. Where
      BATON_LIMITS_FILE is set, calls are counted without it, too, and those above are rejected.
    - One job process waits idle in `dev`, too: a dispatched agent joins in 0.4 s instead of 1.5 s.
    """

    def __init__(
        self,
        *,
        max_jobs: int | None = None,
        parts: Sequence[WorkerPart] | None = None,
        admission: CallAdmission | None = None,
        **options: Any,
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
        if admission is None and CoordinatorSettings().limits_file is not None:
            admission = CallAdmission()
        self._door = CallDoor(admission) if admission is not None else None
        door: Sequence[WorkerPart] = (self._door,) if self._door is not None else ()
        self._watch = WorkerWatch()
        own: tuple[WorkerPart, ...] = (WorkerHttp(), self._watch, Spares(), Leftovers())
        self._parts: tuple[WorkerPart, ...] = (*own, *door, *(parts or ()))
        self._commanded: asyncio.Task[None] | None = None

    @overload
    def rtc_session(self, func: Entrypoint, **options: Any) -> Entrypoint: ...
    @overload
    def rtc_session(self, **options: Any) -> Callable[[Entrypoint], Entrypoint]: ...
    def rtc_session(
        self, func: Entrypoint | None = None, **options: Any
    ) -> Entrypoint | Callable[[Entrypoint], Entrypoint]:
        """As `AgentServer.rtc_session`. `agent_name` is also the agent's role."""

        def register(entrypoint: Entrypoint) -> Entrypoint:
            admission = None
            if self._door is not None:
                options["on_request"] = self._door.guard(options.get("on_request"))
                admission = self._door.admission
            super(CoordinatedServer, self).rtc_session(CoordinatedEntrypoint(entrypoint, admission), **options)
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
        """As `AgentServer.drain`, and meanwhile each call of this worker moves to another one.

        No new call is accepted from the first moment on. A second SIGTERM changes nothing: LiveKit would end the
        process at once, and with it every call that has not moved yet. Raises `TimeoutError` when the timeout has run
        out; the calls that are left then are taken up as those of lost agents.
        """
        ignore_further_sigterm()
        moving = [asyncio.create_task(part.drain(), name="baton: drain the worker") for part in self._parts]
        try:
            await super().drain(*arguments, **options)
        except TimeoutError:
            await self._watch.give_up_calls()
            raise
        finally:
            for task in moving:
                task.cancel()
            await asyncio.gather(*moving, return_exceptions=True)

    @property
    def livekit(self) -> tuple[str, str, str]:
        """URL, API key and secret of the LiveKit server that this worker serves."""
        return self._ws_url, self._api_key, self._api_secret

    def told(self, command: str) -> None:
        """A command that arrived on the worker's own channel: `drain` moves its calls away, and takes no more."""
        if command != DRAIN:
            logger.warning("a command for this worker is not known and ignored")
        elif not self._commanded:
            self._commanded = asyncio.create_task(self._drain_on_command(), name="baton: drain on command")

    async def _drain_on_command(self) -> None:
        try:
            await self.drain(timeout=None)
        except Exception:
            logger.exception("the worker could not drain")

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


def ignore_further_sigterm() -> None:
    """From here on a SIGTERM is only logged; SIGINT and SIGKILL end the process as ever."""

    def ignore(*_: object) -> None:
        logger.warning("this worker is draining already; SIGKILL would end it with all its calls")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ignore)


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
