"""The wheel, environments that hold it and no checkout, and what the documentation shows to run in them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def build(folder: Path) -> Path:
    built = run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    return file


def environment(folder: Path, wheel: str) -> Path:
    """The interpreter of a new environment with the wheel and the extras named behind it, compiled as by pip."""
    install = ["pip", "install", "--quiet", "--compile-bytecode", "--constraint", ROOT / "requirements.lock"]
    for command in (
        ["venv", "--quiet", "--python", sys.executable, folder / "venv"],
        [*install, "--python", folder / "venv", wheel],
    ):
        done = run(sys.executable, "-m", "uv", *command, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "venv/bin/python"


def examples(document: str) -> list[str]:
    """The Python that a page of the documentation shows."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
