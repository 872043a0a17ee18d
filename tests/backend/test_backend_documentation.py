"""The reference page of the backend lists what there is, with its defaults, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main
from pydantic import BaseModel

from backend.__main__ import app
from backend.metrics import Metrics
from backend.settings import BackendSettings

PAGE = Path(__file__).parents[2] / "docs/reference/backend.md"


def _rows() -> dict[str, list[str]]:
    """First cell of each table row -> the other cells."""
    rows = re.findall(r"^\| `([^`]+)`[^|]*\|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {first: [cell.strip().strip("`") for cell in rest.split("|")] for first, rest in rows}


def _default(model: type[BaseModel], name: str) -> str:
    default = model.model_fields[name].default
    return "" if default is None else str(default).lower()


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {name: cells[0] for name, cells in _rows().items() if name.startswith("BACKEND_")}

    own = [name for name in BackendSettings.model_fields if not name.startswith("livekit_")]
    assert listed == {f"BACKEND_{name.upper()}": _default(BackendSettings, name) for name in own}


def test_every_metric_is_listed_with_its_labels() -> None:
    listed = {name: cells[0] for name, cells in _rows().items() if name.startswith("backend_")}

    made: dict[str, str] = {}
    for metric in vars(Metrics()).values():
        if hasattr(metric, "_labelnames"):
            suffix = "_total" if type(metric).__name__ == "Counter" else ""
            made[metric._name + suffix] = ", ".join(f"`{label}`" for label in metric._labelnames).strip("`")
    assert made
    assert listed == made


def test_every_command_is_listed() -> None:
    listed = {name.removeprefix("python -m backend ") for name in _rows() if name.startswith("python -m backend ")}

    group = typer.main.get_command(app)
    commands = getattr(group, "commands")  # noqa: B009  # typer's type of it is private
    names = {
        f"{name} {sub}".strip()
        for name, command in commands.items()
        for sub in getattr(command, "commands", {"": None})
    }
    assert listed == names
