"""What a chaos run runs on: a livekit-server, a Valkey, workers behind proxies. All are this process's own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from coordination.dev.ports import free_tcp_port
from coordination.dev.process import ChildProcess
from coordination.dev.valkey import EmbeddedValkey
from coordination.testing.faults import FaultImpossible, RedisFaults, Victim
from coordination.testing.proxy import FaultyProxy
from tests.chaos.words import ROLES
from tests.rooms.rig import LiveKitServer

ROOT = Path(__file__).parents[2]
READY_WITHIN = timedelta(seconds=60)


class ChaosWorker:
    """One worker process, its own proxy to Redis and its own to LiveKit."""

    def __init__(
        self,
        name: str,
        role: str,
        *,
        environment: dict[str, str],
        redis: FaultyProxy,
        livekit: FaultyProxy,
        folder: Path,
    ) -> None:
        self.name, self.role, self.redis, self.livekit, self.folder = name, role, redis, livekit, folder
        self._port = free_tcp_port()
        self._process = ChildProcess(
            name,
            [sys.executable, "-m", "tests.chaos.chaos_worker", "start", "--log-level", "info"],
            log=folder / f"{name}.log",
            cwd=ROOT,
            env={
                **os.environ,
                **environment,
                "TEST_ROLE": role,
                "TEST_FOLDER": str(folder),
                "BATON_HTTP_PORT": str(self._port),
            },
        )

    def start(self) -> None:
        self._process.spawn()

    async def ready(self) -> None:
        """Returns when LiveKit knows the worker."""
        deadline = time.monotonic() + READY_WITHIN.total_seconds()
        # In a thread: the worker asks Redis through a proxy that runs in this loop.
        while not await asyncio.to_thread(self._says_so):
            assert time.monotonic() < deadline, f"{self.name} is not ready: {self._process.tail(40)}"
            await asyncio.sleep(0.1)

    @property
    def running(self) -> bool:
        return self._process.running

    def victim(self) -> Victim:
        """The main process."""
        assert self._process.pid is not None
        return Victim.of(self._process.pid, f"the worker {self.name}")

    def stop(self) -> None:
        """Ends the worker and all that it started, whatever became of it."""
        self._process.kill()

    def _says_so(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/ready", timeout=1.0) as answer:
                return answer.status == 200
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a worker in one room, as its process wrote it down."""

    agent: str
    role: str
    victim: Victim


@dataclass(slots=True)
class Rig:
    """Everything that can be broken."""

    livekit: LiveKitServer
    valkey: EmbeddedValkey
    redis: RedisFaults
    workers: list[ChaosWorker]
    folder: Path

    def jobs(self, room: str) -> list[Job]:
        """The jobs in a room whose processes live, in the order in which they began."""
        found: list[Job] = []
        for file in sorted(self.folder.glob(f"{room}.*"), key=lambda path: path.stat().st_mtime_ns):
            pid, _, role = file.read_text().partition(" ")
            if role and (victim := _living(int(pid), f"the {role}'s job")) is not None:
                found.append(Job(file.name.removeprefix(f"{room}."), role, victim))
        return found

    def worker_of(self, job: Job) -> ChaosWorker | None:
        """The worker whose job it is, by the ancestry of its process."""
        ancestors = set(_ancestors(job.victim.pid))
        return next((each for each in self.workers if each.running and each.victim().pid in ancestors), None)


@asynccontextmanager
async def rigged(folder: Path, roles: Sequence[str], *, mutant: str = "", **settings: str) -> AsyncIterator[Rig]:
    """Servers, proxies, and one worker for each of the roles (a role may come twice), ready to be called."""
    async with AsyncExitStack() as stack:
        livekit = stack.enter_context(LiveKitServer())
        valkey = await stack.enter_async_context(EmbeddedValkey())
        workers: list[ChaosWorker] = []
        for number, role in enumerate(roles, start=1):
            redis = await stack.enter_async_context(FaultyProxy.to(valkey.url))
            signal = await stack.enter_async_context(FaultyProxy.to(livekit.url))
            environment = {
                **livekit.environment,
                "LIVEKIT_URL": signal.url(livekit.url),
                "BATON_REDIS_URL": redis.url(valkey.url),
                "BATON_CALLER_GRACE": "1.5",
                "BATON_FALLBACK_ROLES": json.dumps({"*": list(ROLES)}),
                "TEST_MUTANT": mutant,
                **settings,
            }
            worker = ChaosWorker(
                f"{role}-{number}", role, environment=environment, redis=redis, livekit=signal, folder=folder
            )
            stack.callback(worker.stop)
            worker.start()
            workers.append(worker)
        await asyncio.gather(*(worker.ready() for worker in workers))
        faults = RedisFaults(valkey)
        stack.push_async_callback(faults.close)
        yield Rig(livekit, valkey, faults, workers, folder)


def _living(pid: int, name: str) -> Victim | None:
    try:
        return Victim.of(pid, name)
    except FaultImpossible:
        return None


def _ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while pid > 1:
        found.append(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
    return found
