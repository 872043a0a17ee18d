"""Worker processes of the development stack: how one is started, known to be registered, and ended.

A worker's main process has job processes of its own. It is asked to end alone (a signal to the whole group
would take the jobs from under it), and after its end its group is swept, so nothing stays behind.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from coordination.dev.errors import ComponentFailed
from coordination.dev.ports import free_tcp_port
from coordination.dev.process import ChildProcess, eventually
from coordination.dev.targets import is_path

REGISTER_WITHIN = timedelta(seconds=60)
"""Imports of speech models and plugins take their time on a small machine; a crash is noticed at once."""
_WORKER_MODULE = "coordination.dev.worker"
_TELLS_NOTHING = {"agent", "main", "__init__", "/", ".", ".."}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One worker to run: an agent's file or module, and how."""

    target: str
    """A path (`my_agent.py`, or a folder with an `agent.py`) or a module (`agents.billing.agent`)."""
    name: str = ""
    """What logs call it; by default made from the target."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Added to the stack's environment for this worker."""
    idle_processes: int = 1
    """Job processes kept ready: one makes an agent join in 0.4 s instead of 1.5 s and costs about 50 MB."""
    drain_timeout: timedelta = timedelta(seconds=2)
    """How long calls may go on after a request to stop. Whole seconds."""
    log_level: str = "INFO"

    @property
    def label(self) -> str:
        """The name, or one made from the target: `my_agent`, `billing` for `agents/billing/agent.py`."""
        if self.name:
            return self.name
        path = Path(self.target.removesuffix(".py"))
        parts = path.parts if is_path(self.target) else tuple(self.target.split("."))
        telling = [part for part in parts if part not in _TELLS_NOTHING] or ["agent"]
        return _UNSAFE.sub("-", telling[-1])


class WorkerProcess:
    """A running worker. After `register`, `role`, `worker_id` and `health_port` tell what it is."""

    def __init__(self, spec: WorkerSpec, *, name: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.spec = spec
        self.name = name
        self.role = ""
        self.worker_id = ""
        self.fleet_id = ""
        """What it is called in Baton's registry of the fleet; empty for a plain `AgentServer`."""
        self.health_port = 0
        self._directory = directory
        self._environment = {**environment, **spec.environment}
        self._ready_file = directory / f"{name}.ready"
        self._child: ChildProcess | None = None

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.name} pid={self.pid} role={self.role!r}>"

    @property
    def log(self) -> Path:
        return self._directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The main process, the parent of the job processes."""
        return self._child.pid if self._child is not None else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def returncode(self) -> int | None:
        return self._child.returncode if self._child is not None else None

    @property
    def health_url(self) -> str:
        return f"http://127.0.0.1:{self.health_port}"

    def log_tail(self, lines: int = 20) -> str:
        return self._child.tail(lines) if self._child is not None else ""

    def spawn(self) -> None:
        """Starts the process; `register` waits for it. Also starts it again after its end, with a new health port."""
        self._ready_file.unlink(missing_ok=True)
        self.health_port = free_tcp_port()
        seconds = max(1, round(self.spec.drain_timeout.total_seconds()))
        options = {
            "--health-port": self.health_port,
            "--idle-processes": self.spec.idle_processes,
            "--drain-timeout": seconds,
            "--log-level": self.spec.log_level,
            "--ready-file": self._ready_file,
        }
        argv = [sys.executable, "-u", "-m", _WORKER_MODULE, self.spec.target]
        argv += [str(part) for option in options.items() for part in option]
        self._child = ChildProcess(f"worker {self.name}", argv, log=self.log, env=self._environment)
        self._child.spawn()

    async def register(self, *, within: timedelta = REGISTER_WITHIN) -> None:
        """Returns when LiveKit knows the worker. Raises `ComponentFailed` with its last log lines if it ends before."""
        await eventually(lambda: not self.running or self._ready_file.exists(), within, every=0.05)
        if not self.running:
            raise self.failure("at start")
        if not self._ready_file.exists():
            seconds = within.total_seconds()
            what = f"has not registered with LiveKit within {seconds:g} s"
            raise ComponentFailed(f"Worker {self.name}", what, log=self.log_tail(), log_file=str(self.log))
        told = json.loads(self._ready_file.read_text())
        self.role, self.worker_id, self.fleet_id = told["role"], told["worker"], told["fleet"]

    def failure(self, when: str) -> ComponentFailed:
        """The error for a worker that ended by itself."""
        what = f"({self.spec.target}) ended {when} with status {self.returncode}"
        return ComponentFailed(f"Worker {self.name}", what, log=self.log_tail(), log_file=str(self.log))

    async def stop(self, *, within: timedelta) -> None:
        """SIGTERM to the main process, SIGKILL to all of its processes when the time is over."""
        if self._child is not None:
            await self._child.stop(within=within)

    def kill(self) -> None:
        """SIGKILL to the worker and all of its job processes, as when a machine dies."""
        if self._child is not None:
            self._child.kill()

    def send_signal(self, number: signal.Signals) -> None:
        """Signals the main process alone."""
        if self._child is not None:
            self._child.send_signal(number)
