"""Child processes that end with their parent, and services made of one.

Invariant: whatever is started here is ended by `stop`, by the end of the Python process, and on Linux also by its
SIGKILL: the kernel signals the child when the thread that started it ends (PR_SET_PDEATHSIG). So children are started
in the calling thread, never in a thread pool.

Nothing is bound to an event loop: a service that one loop started can be stopped in another, or without any.
"""

from __future__ import annotations

import abc
import asyncio
import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from coordination.dev.errors import ComponentFailed, DevError

_POLL = 0.01
STOP_WITHIN = timedelta(seconds=5)
_REAP_WITHIN = timedelta(seconds=5)
"""SIGKILL ends a process at once, unless it hangs in the kernel; then there is nothing more to do from here."""

# Sets the signal that the kernel sends when the parent is gone, then becomes the program itself: no process in between,
# the pid stays. `preexec_fn` could do the same, but forks a threaded process to run Python in the child.
_GUARD = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]), 0, 0, 0)
if os.getppid() != int(sys.argv[2]):
    raise SystemExit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""

_alive: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


class ChildProcess:
    """One program, its log file, and how it ends.

    `own_session` makes it the leader of a new session, so that a terminal's Ctrl-C reaches only the parent and
    that what it leaves behind can be ended with it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        own_session: bool = True,
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._own_session = own_session
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None and self.returncode is None

    @property
    def returncode(self) -> int | None:
        """None while it runs and before it was started; negative for the signal that ended it."""
        return _status(self._process) if self._process is not None else None

    def spawn(self) -> None:
        """Starts the program; its output goes to the end of the log. Raises `DevError` if it runs already."""
        if self.running:
            raise DevError(f"{self.name} runs already (pid {self.pid}): stop it before it is started again.")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._started_at = output.tell()
            try:
                self._process = subprocess.Popen(
                    _guarded(self.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    cwd=self._cwd,
                    start_new_session=self._own_session,
                )
            except OSError as error:
                raise DevError(f"{self.name} could not be started: {self.argv[0]}: {error.strerror}.") from error
        _alive.add(self)

    def send_signal(self, number: signal.Signals) -> None:
        """Signals the program alone, not its children. Does nothing when it has ended."""
        if self._process is not None and self.running:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL for the program and, with a session of its own, for what it started. Returns when it is reaped."""
        if self._process is None or self._process.returncode is not None:
            return
        self._kill_all(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_WITHIN.total_seconds())
        _alive.discard(self)

    async def stop(self, *, within: timedelta = STOP_WITHIN) -> None:
        """SIGTERM; SIGKILL when `within` is over, or at once when this is cancelled. Nothing is left either way."""
        try:
            if self._ask_to_end():
                await eventually(lambda: not self.running, within)
        finally:
            self.kill()

    def stop_now(self, *, within: timedelta = STOP_WITHIN) -> None:
        """The same as `stop` without an event loop; blocks."""
        try:
            if self._ask_to_end():
                eventually_now(lambda: not self.running, within)
        finally:
            self.kill()

    def tail(self, lines: int = 20) -> str:
        """The last lines that the program wrote since it was started."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(self._started_at, self.log.stat().st_size - 200 * 1024))
            text = file.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def _ask_to_end(self) -> bool:
        if not self.running:
            return False
        self.send_signal(signal.SIGTERM)
        self.send_signal(signal.SIGCONT)  # a stopped process sees the request only when it goes on
        return True

    def _kill_all(self, process: subprocess.Popen[bytes]) -> None:
        # The leader is not reaped before this point, so neither its pid nor its group's id can be a stranger's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._own_session:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(process.pid, signal.SIGKILL)


class Service(abc.ABC):
    """A server program that becomes ready: `async with`, `with`, or start and stop by hand.

    A service can be started again after `stop` or `kill`; its address stays the same.
    """

    ready_within = timedelta(seconds=15)
    stop_within = timedelta(seconds=5)
    """How long it may take to end by itself before it is killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._child: ChildProcess | None = None

    @abc.abstractmethod
    def _prepare(self) -> ChildProcess:
        """The process to start, with ports and files in place."""

    @abc.abstractmethod
    def _probe(self) -> bool:
        """Whether it serves by now. Answers within a fraction of a second."""

    def _cleanup(self) -> None:  # noqa: B027 - most have nothing to clean up
        """Removes what `_prepare` made, after the process has ended."""

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    def log_tail(self, lines: int = 20) -> str:
        return self._child.tail(lines) if self._child is not None else ""

    async def start(self) -> Self:
        """Returns when the service serves. Raises `ComponentFailed` with its last log lines, and leaves nothing."""
        child = self._launch()
        try:
            ready = await eventually(self._ready_or_dead, self.ready_within)
            self._check(child, ready)
        except BaseException:
            await self.stop()
            raise
        return self

    def start_now(self) -> Self:
        """The same as `start` without an event loop; blocks."""
        child = self._launch()
        try:
            self._check(child, eventually_now(self._ready_or_dead, self.ready_within))
        except BaseException:
            self.stop_now()
            raise
        return self

    async def stop(self) -> None:
        """Ends it and removes its files. Can be called at any time, more than once."""
        try:
            if self._child is not None:
                await self._child.stop(within=self.stop_within)
        finally:
            self._cleanup()

    def stop_now(self) -> None:
        """The same as `stop` without an event loop; blocks."""
        try:
            if self._child is not None:
                self._child.stop_now(within=self.stop_within)
        finally:
            self._cleanup()

    def kill(self) -> None:
        """SIGKILL, as in a crash: files and ports are kept for the next `start`."""
        if self._child is not None:
            self._child.kill()

    def pause(self) -> None:
        """SIGSTOP: alive, its sockets open, and silent."""
        if self._child is not None:
            self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)

    def _launch(self) -> ChildProcess:
        if self.running:
            raise DevError(f"{self.name} runs already (pid {self.pid}): stop it before it is started again.")
        self._child = child = self._prepare()
        child.spawn()
        return child

    def _ready_or_dead(self) -> bool:
        return not self.running or self._probe()

    def _check(self, child: ChildProcess, ready: bool) -> None:
        if child.running and ready:
            return
        what = f"ended with status {child.returncode} at start"
        if child.running:
            what = f"was not ready within {self.ready_within.total_seconds():g} s"
        raise ComponentFailed(self.name, what, log=child.tail(), log_file=str(child.log))

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        return self.start_now()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_now()


async def eventually(condition: Callable[[], bool], within: timedelta, *, every: float = _POLL) -> bool:
    """Looks at the condition until it holds or the time is over; tells which."""
    deadline = time.monotonic() + within.total_seconds()
    while not (held := condition()) and time.monotonic() < deadline:
        await asyncio.sleep(every)
    return held


def eventually_now(condition: Callable[[], bool], within: timedelta, *, every: float = _POLL) -> bool:
    """`eventually` without an event loop; blocks."""
    deadline = time.monotonic() + within.total_seconds()
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(every)
    return held


def _status(process: subprocess.Popen[bytes]) -> int | None:
    """How the process ended, without reaping it, so that its pid stays reserved until its group is ended too."""
    if process.returncode is not None or not hasattr(os, "waitid"):
        return process.poll()
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return process.poll()
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _guarded(argv: Sequence[str]) -> list[str]:
    if sys.platform != "linux" or not sys.executable:
        return list(argv)
    guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(int(signal.SIGKILL)), str(os.getpid())]
    return [*guard, *argv]


@atexit.register
def _kill_the_rest() -> None:
    """The last resort, for platforms without a parent-death signal and for callers who forgot `stop`."""
    for child in list(_alive):
        child.kill()
