"""What a worker does once for all its job processes is there when a job begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

JOB_PROCESS = """
import multiprocessing

from livekit.agents.utils import http_context

from coordination.livekit import CoordinatedServer


def certificates_read() -> int:
    return http_context._ssl_context_for.cache_info().currsize


if __name__ == "__main__":
    worker = multiprocessing.get_context("forkserver")
    worker.set_forkserver_preload(CoordinatedServer()._preload_modules)
    with worker.Pool(1) as jobs:
        print(jobs.apply(certificates_read))
"""


def test_a_job_process_begins_with_the_certificates_read(tmp_path: Path) -> None:
    """Otherwise its event loop stands still for as long as that takes, while a caller waits for it."""
    script = tmp_path / "worker.py"
    script.write_text(JOB_PROCESS)

    read = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)

    assert read.stdout == "1\n"
