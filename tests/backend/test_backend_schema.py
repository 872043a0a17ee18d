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

EXCLUDED = "positive_data_acceptance"
"""It takes every refusal of what the schema allows for a fault; some rules (depth of an object, one of two parameters,
an address that is public) cannot be said in a schema, and are said in the refusal."""


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with LiveKitServer() as livekit, BackendServer(environment=livekit.environment) as backend:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{backend.url}/openapi.json"]
        command += ["--header", f"Authorization: Bearer {backend.token}", "--exclude-checks", EXCLUDED]
        command += ["--phases", "coverage", "--seed", "1", "--no-color"]
        found = subprocess.run(
            [*command, "--suppress-health-check", "all"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        log = backend.log_tail()

    assert found.returncode == 0, found.stdout[-6000:] + log
    assert "Traceback" not in log
