"""The reference backend as a part of the development stack: its own process, on loopback, on SQLite by default.

The backend is no part of the library and is not imported here: it is started from the folder that holds it.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from coordination.dev.errors import ComponentMissing
from coordination.dev.ports import LOOPBACK, free_tcp_port
from coordination.dev.process import ChildProcess, Service

CHECKOUT = Path(__file__).parents[2]
_PROBE_TIMEOUT = 1.0


class BackendServer(Service):
    """`python -m backend serve` on a random free port of 127.0.0.1, with a token for one tenant.

    `folder` holds the package `backend`; by default this checkout. The database is a temporary file that `stop`
    removes, unless `database_url` names another. `environment` is given to the process last, e.g.
    `LiveKitServer.environment`. `kill` and `start` again keep address, token and data.
    """

    stop_within = timedelta(seconds=5)

    def __init__(
        self,
        *,
        tenant: str = "default",
        database_url: str | None = None,
        folder: Path = CHECKOUT,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        ready_within: timedelta = timedelta(seconds=60),
    ) -> None:
        super().__init__("backend")
        self.ready_within = ready_within
        self.port = free_tcp_port()
        self.tenant = tenant
        self.token = f"bt_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
        self._database_url = database_url
        self._folder = folder
        self._environment = dict(environment or {})
        self._log = log
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {"BATON_BACKEND_URL": self.url, "BATON_BACKEND_TOKEN": self.token}

    @property
    def directory(self) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="baton-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    @property
    def database_url(self) -> str:
        return self._database_url or f"sqlite:///{self.directory / 'backend.db'}"

    def _prepare(self) -> ChildProcess:
        if not (self._folder / "backend/__main__.py").is_file():
            raise ComponentMissing("The reference backend", f"It is a folder of the checkout, not of {self._folder}.")
        given = {
            "BACKEND_DATABASE_URL": self.database_url,
            "BACKEND_BOOTSTRAP_TOKEN": f"{self.tenant}:{self.token}",
        }
        return ChildProcess(
            self.name,
            [sys.executable, "-m", "backend", "serve", "--host", LOOPBACK, "--port", str(self.port)],
            log=self._log or self.directory / "backend.log",
            env={**os.environ, **given, **self._environment},
            cwd=self._folder,
        )

    def _probe(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=_PROBE_TIMEOUT)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _cleanup(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
