"""Each line of docs/guarantees.md names a test that shows it, and that test exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guarantees.md").read_text()
ROWS = [row for row in re.findall(r"^\| (?!---)(.*) \|$", PAGE, re.MULTILINE) if not row.endswith("| shown by")]
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
RUNS = set(re.findall(r'Run\("([^"]+)"', (ROOT / "tests/model/check.py").read_text()))


@cache
def _tests_of(path: str) -> frozenset[str]:
    """Test functions of a module under `tests/`, those of its classes among them; empty without the module."""
    file = ROOT / "tests" / path
    if not file.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_named_test_exists() -> None:
    assert len(NAMED) > 50
    assert [f"{path}::{name}" for path, name in NAMED if name not in _tests_of(path)] == []


def test_every_run_of_the_model_that_is_named_exists() -> None:
    named = re.findall(r"model: ([^;|]+?)(?:;| \|)", PAGE)

    assert named
    assert [name for name in named if name not in RUNS] == []


def test_every_line_of_promise_names_what_shows_it() -> None:
    assert len(ROWS) > 35
    assert [row[:60] for row in ROWS if "::test_" not in row.rsplit(" | ", 1)[-1]] == []
