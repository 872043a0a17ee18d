"""One object that runs a whole development setup: Valkey, livekit-server and one process for each worker.

Started in the order in which the parts need each other, stopped in the opposite one; a part that fails at start takes
down what was started before it. What the environment names (LIVEKIT_URL, BATON_REDIS_URL) is used and left alone.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from coordination.dev.backend import BackendServer
from coordination.dev.errors import DevError
from coordination.dev.extras import require_livekit
from coordination.dev.follow import LogFollower
from coordination.dev.livekit_program import Progress
from coordination.dev.livekit_server import ExternalLiveKit, LiveKitServer, livekit_from_environment
from coordination.dev.targets import check_path
from coordination.dev.valkey import EmbeddedValkey
from coordination.dev.workers import REGISTER_WITHIN, WorkerProcess, WorkerSpec

STOP_WITHIN = timedelta(seconds=8)
"""For the workers to leave their rooms; a development stack has no call that is worth more."""
_GIVE_UP_WITHIN = timedelta(seconds=1)
"""For the workers of a start that failed: they have no calls, and one that is half started does not listen."""
_WATCH_EVERY = 0.2


class DevStack:
    """Valkey, livekit-server and workers as one unit.

    `async with DevStack(["receptionist.py", "billing.py"]) as stack:` returns when every worker is registered.

    With `redis=False` there is none, and workers run uncoordinated. `backend` is a server that workers save to.
    Parts that are given (`redis_url`, `livekit`) or named by the environment are used as they are and not stopped.
    Logs are files in `directory`: a temporary one unless given, which `stop` removes and a failed start keeps.
    `on_line(name, line)` gets every line that a worker writes, `progress` a sentence for each step.

    Starting raises a `DevError` that says which part failed, with its last log lines, and leaves nothing running.
    Cancelling the start or the stop leaves nothing running either.
    """

    def __init__(
        self,
        workers: Sequence[WorkerSpec | str] = (),
        *,
        redis_url: str | None = None,
        redis: bool = True,
        backend: BackendServer | None = None,
        livekit: ExternalLiveKit | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        on_line: Callable[[str, str], None] | None = None,
        progress: Progress | None = None,
        register_within: timedelta = REGISTER_WITHIN,
        stop_within: timedelta = STOP_WITHIN,
    ) -> None:
        base = os.environ if environment is None else environment
        self._base_environment = dict(base)
        self._specs = [WorkerSpec(target=spec) if isinstance(spec, str) else spec for spec in workers]
        self._redis_url = redis_url or base.get("BATON_REDIS_URL") or None
        self._with_redis = redis
        self.backend = backend
        """The reference backend, if the stack has one; it is started and stopped with the rest."""
        self._livekit = livekit or livekit_from_environment(base)
        self._given_directory = directory
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._on_line = on_line
        self._progress: Progress = progress or _silent
        self._register_within = register_within
        self._stop_within = stop_within
        self._follower: LogFollower | None = None
        self.valkey: EmbeddedValkey | None = None
        """The embedded one; None when Redis is somebody else's."""
        self.livekit_server: LiveKitServer | None = None
        """The one that was started here; None when it is somebody else's."""
        self.workers: tuple[WorkerProcess, ...] = ()

    @property
    def redis_url(self) -> str:
        if self._redis_url is not None:
            return self._redis_url
        if self.valkey is None:
            raise DevError("The stack has no Valkey yet: start it first.")
        return self.valkey.url

    @property
    def livekit(self) -> ExternalLiveKit:
        """Where the server is, and the key for it."""
        if self._livekit is not None:
            return self._livekit
        if self.livekit_server is None:
            raise DevError("The stack has no livekit-server yet: start it first.")
        server = self.livekit_server
        return ExternalLiveKit(url=server.url, api_key=server.api_key, api_secret=server.api_secret)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to belong to this stack, on top of its own environment."""
        redis = {"BATON_REDIS_URL": self.redis_url} if self._with_redis else {"BATON_COORDINATION": "off"}
        backend = self.backend.environment if self.backend is not None else {}
        return {**self.livekit.environment, **redis, **backend}

    @property
    def directory(self) -> Path:
        """Where the logs are."""
        if self._given_directory is not None:
            return self._given_directory
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="baton-dev-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    def worker(self, name: str) -> WorkerProcess:
        """The worker of that name or role. Raises `DevError` listing the names there are."""
        for worker in self.workers:
            if name in (worker.name, worker.role):
                return worker
        names = ", ".join(worker.name for worker in self.workers) or "none"
        raise DevError(f"The stack has no worker {name!r}; it has: {names}.")

    async def start(self) -> Self:
        """Returns when all parts serve and every worker is registered."""
        self._check()
        try:
            await self._start_servers()
            await self._start_workers()
        except BaseException:
            await self._end(keep_logs=True, within=_GIVE_UP_WITHIN)
            raise
        return self

    async def stop(self) -> None:
        """Workers first, so that agents leave their rooms; then the servers. Can be called more than once."""
        await self._end(keep_logs=False, within=self._stop_within)

    async def run(self) -> None:
        """Watches until it is cancelled. Raises `ComponentFailed` as soon as a part has ended by itself."""
        while True:
            for worker in self.workers:
                if not worker.running:
                    raise worker.failure("by itself")
            for service in (self.valkey, self.livekit_server, self.backend):
                if service is not None and not service.running:
                    raise DevError(f"{service.name} has ended by itself. Its last lines:\n{service.log_tail()}")
            await asyncio.sleep(_WATCH_EVERY)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _check(self) -> None:
        """What can be known to fail before anything is started."""
        if self._specs:
            require_livekit()
        for spec in self._specs:
            check_path(spec.target)

    async def _start_servers(self) -> None:
        if self._redis_url is None and self._with_redis:
            self.valkey = EmbeddedValkey()
            await self.valkey.start()
            self._progress(f"Valkey is up: {self.valkey.url}")
        if self._livekit is None:
            log = self.directory / "livekit-server.log"
            self.livekit_server = LiveKitServer(install=True, progress=self._progress, log=log)
            await self.livekit_server.start()
            source = self.livekit_server.program.source
            self._progress(f"livekit-server is up: {self.livekit_server.url} (from {source})")
        if self.backend is not None:
            await self.backend.start()
            self._progress(f"The backend is up: {self.backend.url}")

    async def _start_workers(self) -> None:
        environment = {**self._base_environment, **self.environment}
        names = _unique([spec.label for spec in self._specs])
        self.workers = tuple(
            WorkerProcess(spec, name=name, directory=self.directory, environment=environment)
            for spec, name in zip(self._specs, names, strict=True)
        )
        if self._on_line is not None:
            logs = {worker.name: worker.log for worker in self.workers}
            self._follower = LogFollower(logs, self._on_line)
            self._follower.open()
        for worker in self.workers:
            worker.spawn()
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self.workers:
                    group.create_task(self._register(worker), name=f"register {worker.name}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the first is the cause; the others were cancelled for it

    async def _register(self, worker: WorkerProcess) -> None:
        await worker.register(within=self._register_within)
        self._progress(f"Worker {worker.name} is registered (pid {worker.pid}, role {worker.role or 'any'})")

    async def _end(self, *, keep_logs: bool, within: timedelta) -> None:
        try:
            await asyncio.gather(*(worker.stop(within=within) for worker in self.workers))
        finally:
            for worker in self.workers:
                worker.kill()
            if self._follower is not None:
                await self._follower.close()
            self._stop_servers()
            if self._temporary is not None and not keep_logs:
                self._temporary.cleanup()
                self._temporary = None

    def _stop_servers(self) -> None:
        # Blocking, but bounded and short; so that a cancellation cannot come between the two.
        for service in (self.backend, self.livekit_server, self.valkey):
            if service is not None:
                service.stop_now()


def _unique(names: Sequence[str]) -> list[str]:
    """The same names, a number behind those that come again."""
    seen: dict[str, int] = {}
    result: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result


def _silent(_: str) -> None:
    return
