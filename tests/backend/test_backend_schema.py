"""schemathesis reads the API's description and tries to break it: what it sends is answered as described.

The service runs as a process of its own, with a real livekit-server behind it. The phase `coverage` tries each rule of
the description from both sides; random requests (`--phases fuzzing`) take longer, and can be sent by hand.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coordination.dev.backend import BackendServer
from coordination.dev.livekit_server import LiveKitServer

ASSUMED = Path(__file__).with_name("schemathesis.toml")
HALF = r"^/v1/(conversations|events|sessions|users|livekit)|^/(health|metrics)"
"""Two processes share the operations: each of them is busy with making requests up for half of the time."""


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with LiveKitServer() as livekit, BackendServer(environment=livekit.environment) as backend:
        halves = [_start(backend, tmp_path / name, f"--{name}-path-regex") for name in ("include", "exclude")]
        found = [each.communicate(timeout=400)[0] for each in halves]
        log = backend.log_tail()

    assert [each.returncode for each in halves] == [0, 0], "\n".join(text[-6000:] for text in found) + log
    assert "Traceback" not in log


def _start(backend: BackendServer, folder: Path, which: str) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={ASSUMED}"]
    command += ["run", f"{backend.url}/openapi.json", "--header", f"Authorization: Bearer {backend.token}"]
    command += ["--phases", "coverage", "--seed", "1", "--no-color", "--suppress-health-check", "all", which, HALF]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
