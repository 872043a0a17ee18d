"""The reference pages list what there is, with its defaults, and nothing else."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
import typer.main
from pydantic_settings import BaseSettings

from coordination import metrics
from coordination.cli.app import app
from coordination.persistence import PersistenceSettings
from coordination.settings import CoordinatorSettings

REFERENCE = Path(__file__).parents[2] / "docs/reference"


def _rows(page: str) -> dict[str, list[str]]:
    """First cell of each table row -> the other cells."""
    rows = re.findall(r"^\| `([^`]+)`[^|]*\|(.*)\|$", (REFERENCE / page).read_text(), re.MULTILINE)
    return {first: [cell.strip().strip("`") for cell in rest.split("|")] for first, rest in rows}


def _as_text(default: object) -> str:
    if isinstance(default, timedelta):
        return f"{default.total_seconds():g}"
    if isinstance(default, Path):
        return str(default)
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)


@pytest.mark.parametrize("settings", [CoordinatorSettings, PersistenceSettings])
def test_every_setting_is_listed_with_its_default(settings: type[BaseSettings]) -> None:
    rows = _rows("settings.md")
    fields = settings.model_fields

    listed = {f"BATON_{name.upper()}": rows[f"BATON_{name.upper()}"][0] for name in fields}

    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    assert listed == {f"BATON_{name.upper()}": _as_text(default) for name, default in defaults.items()}


def test_every_metric_is_listed_with_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows("metrics.md")
    made: dict[str, str] = {}
    for kind in ("_counter", "_histogram"):
        suffix = "_total" if kind == "_counter" else ""

        def note(name: str, _text: str, *labels: object, suffix: str = suffix) -> None:
            made[name + suffix] = ", ".join(f"`{label}`" for label in labels if isinstance(label, str)).strip("`")

        monkeypatch.setattr(metrics, kind, note)
    every = metrics.Metrics()
    for name in dir(metrics.Metrics):
        if name.startswith("_") and not name.startswith("__"):
            getattr(every, name)

    assert made
    assert {name: cells[1] for name, cells in rows.items() if name.startswith("baton_")} == made


def test_every_command_is_listed() -> None:
    listed = " ".join(_rows("cli.md"))
    group = typer.main.get_command(app)
    commands = getattr(group, "commands")  # noqa: B009  # typer's type of it is private
    names = [
        f"baton {name} {sub}" if sub else f"baton {name}"
        for name, command in commands.items()
        for sub in getattr(command, "commands", {"": None})
    ]

    assert names
    assert [name for name in names if name not in listed] == []
