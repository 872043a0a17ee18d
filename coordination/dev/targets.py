"""How an agent is named on a command line: a Python file, a folder with an `agent.py`, or a module."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from coordination.dev.errors import NoSuchAgent


def is_path(target: str) -> bool:
    """Whether the target is meant as a place in the file system rather than as a module's name."""
    return target.endswith(".py") or os.sep in target or Path(target).is_dir()


def check_path(target: str) -> None:
    """Raises `NoSuchAgent` for a path where no agent is. Modules are not looked up: that would import them."""
    if is_path(target):
        _file_at(target)


def agent_file(target: str) -> Path:
    """The agent's file. Imports the packages around a module. Raises `NoSuchAgent` when there is none."""
    if is_path(target):
        return _file_at(target)
    try:
        spec = importlib.util.find_spec(target)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise NoSuchAgent(target, f"there is no such file, and no module of that name in {Path.cwd()}")
    return Path(spec.origin)


def _file_at(target: str) -> Path:
    path = Path(target)
    if path.is_dir():
        path = path / "agent.py"
    if not path.is_file():
        raise NoSuchAgent(target, f"{path} does not exist")
    return path.resolve()
