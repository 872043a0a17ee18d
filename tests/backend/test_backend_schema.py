"""schemathesis reads the API's description and tries to break it: what it sends is answered as described.

The service runs as a process of its own, with a real livekit-server behind it. The phase `coverage` tries each rule of
the description from both sides; random requests (`--phases fuzzing`) take longer, and can be sent by hand.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from coordination.dev.backend import BackendServer
from coordination.dev.livekit_server import LiveKitServer

ASSUMED = Path(__file__).with_name("schemathesis.toml")
FEWEST = 2000
"""Requests. A description that lost its rules would be tried with next to none, and nothing would be found."""


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with LiveKitServer() as livekit, BackendServer(environment=livekit.environment) as backend:
        command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={ASSUMED}"]
        command += ["run", f"{backend.url}/openapi.json", "--header", f"Authorization: Bearer {backend.token}"]
        command += [
            "--phases",
            "coverage",
            # More would be threads, in which Python 3.11 now and then fails to parse ("AST constructor recursion").
            "--workers",
            "1",
            "--seed",
            "1",
            "--no-color",
            "--suppress-health-check",
            "all",
        ]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
        log = backend.log_tail()

    assert found.returncode == 0, found.stdout[-6000:] + log
    assert "Traceback" not in log
    sent = re.findall(r"(\d+) passed", found.stdout)
    assert sum(map(int, sent)) >= FEWEST, found.stdout[-2000:]
