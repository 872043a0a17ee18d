"""A livekit-server for development and tests, on loopback, gone with the process that started it.

Where the program comes from is decided in `livekit_program`; this file runs it.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from coordination.dev.errors import DevError
from coordination.dev.livekit_program import LiveKitProgram, Progress, find_program, provide_program
from coordination.dev.ports import LOOPBACK, free_tcp_ports, free_udp_port
from coordination.dev.process import ChildProcess, Service

_PROBE_TIMEOUT = 0.25
_API_KEY = "devkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitPorts:
    """Where one livekit-server listens: signalling and API, media over TCP, media over UDP (one multiplexed port)."""

    http: int
    rtc_tcp: int
    rtc_udp: int

    @classmethod
    def free(cls) -> LiveKitPorts:
        http_port, rtc_tcp = free_tcp_ports(2)
        return cls(http=http_port, rtc_tcp=rtc_tcp, rtc_udp=free_udp_port())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalLiveKit:
    """A livekit-server that somebody else runs; nothing is started or stopped."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which LiveKit's own tools find the server."""
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": self.api_key,
            "LIVEKIT_API_SECRET": self.api_secret,
        }


def livekit_from_environment(environment: Mapping[str, str] | None = None) -> ExternalLiveKit | None:
    """The server that LIVEKIT_URL names, or None without it. Raises `DevError` if its key or secret is missing."""
    variables = os.environ if environment is None else environment
    url = variables.get("LIVEKIT_URL", "").strip()
    if not url:
        return None
    missing = [name for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET") if not variables.get(name)]
    if missing:
        raise DevError(
            f"LIVEKIT_URL is set to {url}, but {' and '.join(missing)} is not: set it to a key of that server, "
            "or unset LIVEKIT_URL and a livekit-server is started here."
        )
    return ExternalLiveKit(url=url, api_key=variables["LIVEKIT_API_KEY"], api_secret=variables["LIVEKIT_API_SECRET"])


class LiveKitServer(Service):
    """A livekit-server of this process, on random free ports of 127.0.0.1 and with a random secret.

    `async with LiveKitServer() as server` finds the program (and, with `install=True`, builds it if it must; that
    takes minutes). `kill` and `start` again keep address, key and secret. `config` is merged into the server's
    configuration, one level deep (`{"room": {"empty_timeout": 5}}`).

    Starting raises `ComponentMissing` when there is no program, `ComponentFailed` with the log's last lines when it
    does not serve.
    """

    stop_within = timedelta(milliseconds=300)
    """It would wait for its last participant, and 5 s with nobody there; it has nothing to save."""

    def __init__(
        self,
        *,
        program: LiveKitProgram | None = None,
        install: bool = False,
        progress: Progress | None = None,
        ports: LiveKitPorts | None = None,
        config: Mapping[str, Any] | None = None,
        log: Path | None = None,
        ready_within: timedelta = timedelta(seconds=20),
    ) -> None:
        super().__init__("livekit-server")
        self.ready_within = ready_within
        self._program = program
        self._install = install
        self._progress = progress
        self._config = dict(config or {})
        self._given_log = log
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.ports = ports or LiveKitPorts.free()
        self.api_key = _API_KEY
        self.api_secret = secrets.token_urlsafe(36)

    @property
    def url(self) -> str:
        return f"ws://{LOOPBACK}:{self.ports.http}"

    @property
    def http_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.http}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which LiveKit's own tools find the server."""
        return ExternalLiveKit(url=self.url, api_key=self.api_key, api_secret=self.api_secret).environment

    @property
    def log(self) -> Path:
        return self._given_log or self._directory / "livekit-server.log"

    @property
    def _directory(self) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="baton-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    @property
    def program(self) -> LiveKitProgram:
        """What it runs; looked for on first use."""
        if self._program is None:
            self._program = provide_program(self._progress) if self._install else find_program()
        return self._program

    def configuration(self) -> dict[str, Any]:
        """The server's configuration: loopback only, one port for media."""
        bind = ["0.0.0.0"] if self.program.published_ports else [LOOPBACK]  # all, inside a container
        base: dict[str, Any] = {
            "port": self.ports.http,
            "bind_addresses": bind,
            "keys": {self.api_key: self.api_secret},
            "rtc": {
                # It would listen on every interface; on one machine UDP is enough.
                "tcp_port": self.ports.rtc_tcp if self.program.published_ports else 0,
                "udp_port": self.ports.rtc_udp,
                "use_external_ip": False,
                "enable_loopback_candidate": True,
                # Without this media would be offered on every interface of the machine.
                "ips": {"includes": [] if self.program.published_ports else [f"{LOOPBACK}/32"]},
                "node_ip": LOOPBACK,
            },
            "logging": {"level": "info", "json": False},
        }
        for key, value in self._config.items():
            ours = base.get(key)
            base[key] = {**ours, **value} if isinstance(ours, dict) and isinstance(value, Mapping) else value
        return base

    def _prepare(self) -> ChildProcess:
        program = self.program
        file = self._directory / "livekit.yaml"
        file.touch(mode=0o600)  # it holds the secret
        file.write_text(json.dumps(self.configuration()))  # JSON is YAML
        argv = program.command(file, self.ports.http, self.ports.rtc_tcp, self.ports.rtc_udp)
        return ChildProcess(self.name, argv, log=self.log)

    def _probe(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.ports.http, timeout=_PROBE_TIMEOUT)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    async def stop(self) -> None:
        self._remove_container()
        await super().stop()

    def stop_now(self) -> None:
        self._remove_container()
        super().stop_now()

    def kill(self) -> None:
        self._remove_container()
        super().kill()

    def _remove_container(self) -> None:
        """A container outlives the client that started it: it has to be removed by name."""
        if self._program is not None and self.running and (command := self._program.removal(self.ports.http)):
            subprocess.run(command, check=False, capture_output=True, timeout=30)

    def _cleanup(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
