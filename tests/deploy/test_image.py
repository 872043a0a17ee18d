"""The image is built from files that exist, checks what it installs, and starts what the manifests ask it to start.

No container engine takes part: the commands of the Dockerfile are run here, outside of one.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def _copied(dockerfile: list[str]) -> list[str]:
    sources: list[str] = []
    for line in dockerfile:
        if line.startswith("COPY ") and "--from=" not in line:
            sources += line.split()[1:-1]
    return sources


def test_every_copied_file_exists_and_is_sent_to_the_builder(dockerfile: list[str], root: Path) -> None:
    ignore = (root / ".dockerignore").read_text().splitlines()
    sent = [line[1:] for line in ignore if line.startswith("!")]
    sources = _copied(dockerfile)

    assert sources
    for source in sources:
        assert (root / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in sent), f"{source} is not in .dockerignore"


def test_only_what_a_lock_names_is_installed(dockerfile: list[str]) -> None:
    installs = [part for line in dockerfile for part in line.split("&&") if "pip install" in part]

    assert installs
    for install in installs:
        assert "--require-hashes" in install or ("--no-deps" in install and "--no-index" in install), install


def test_the_base_image_is_a_python_that_the_project_supports(dockerfile: list[str], root: Path) -> None:
    version = next(line.partition("=")[2] for line in dockerfile if line.startswith("ARG PYTHON_VERSION="))

    assert f"Programming Language :: Python :: {version}" in (root / "pyproject.toml").read_text()
    assert {line.split()[1] for line in dockerfile if line.startswith("FROM ")} == {"python:${PYTHON_VERSION}-slim"}


def test_the_last_stage_does_not_run_as_root(dockerfile: list[str]) -> None:
    last = max(n for n, line in enumerate(dockerfile) if line.startswith("FROM "))
    users = [line.split()[1] for line in dockerfile[last:] if line.startswith("USER ")]

    assert len(users) == 1
    assert users[0].split(":")[0] not in {"0", "root"}


def test_the_entry_point_runs_what_the_manifests_ask_for(
    dockerfile: list[str], root: Path, deployments: dict[str, dict[str, Any]]
) -> None:
    """Without a LiveKit server to register at, a worker that was found and loaded says that it has no URL."""
    line = next(line for line in dockerfile if line.startswith("ENTRYPOINT "))
    program, *arguments = json.loads(line.removeprefix("ENTRYPOINT "))
    (container,) = deployments["billing"]["spec"]["template"]["spec"]["containers"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIVEKIT_")}

    result = subprocess.run(
        [sys.executable, *arguments, *container["args"]],
        cwd=root,
        env=environment | {"BATON_REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert program == "python"
    assert "LIVEKIT_URL" in result.stdout + result.stderr
    assert "No such command" not in result.stderr
