"""The model of the floor protocol stands for code that exists. `make model` checks the model itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "tests/model/floor.pml").read_text()
PAGE = (ROOT / "docs/reference/model.md").read_text()
CHECK = (ROOT / "tests/model/check.py").read_text()
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
NAMED = re.findall(r"= ([\w/]+\.(?:py|lua))(?: ([\w.]+))?", MODEL)


def _definitions(path: Path) -> set[str]:
    """Functions, classes and methods of a module, or the functions of a script."""
    text = path.read_text()
    if path.suffix == ".lua":
        return set(re.findall(r"^(?:local )?function (\w+)", text, re.MULTILINE))
    found: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, FUNCTION)}
        elif isinstance(node, FUNCTION):
            found.add(node.name)
    return found


def test_every_script_and_method_that_the_model_names_exists() -> None:
    missing = [
        f"{path} {name}"
        for path, name in NAMED
        if not (ROOT / "coordination" / path).is_file()
        or (name and name not in _definitions(ROOT / "coordination" / path))
    ]

    assert len(NAMED) > 30
    assert missing == []


def test_every_transition_of_an_agent_names_what_it_stands_for() -> None:
    """Each guarded step stands under a comment; one comment may stand over a few steps."""
    body = MODEL[MODEL.index("proctype Agent") : MODEL.index("/* Whether the holder still counts")]
    steps = re.split(r"^  :: d_step", body, flags=re.MULTILINE)

    assert len(steps) > 15
    assert [step for step in steps[:-1] if "/*" not in (end := step.rsplit("}", 1)[-1]) and "#" not in end] == []


def test_every_script_of_a_lease_is_in_the_model_or_said_to_be_left_out() -> None:
    scripts = {path.stem for path in (ROOT / "coordination/store/lua/lease").glob("*.lua")}
    modelled = {Path(path).stem for path, _ in NAMED if path.startswith("store/lua/lease/")}

    assert {name for name in scripts - modelled if f"`lease/{name}`" not in PAGE} == set()


def test_the_page_explains_every_run_and_every_switch() -> None:
    runs = re.findall(r'Run\("([^"]+)"', CHECK)
    switches = set(re.findall(r"^#(?:ifdef|ifndef|if) \(?!?(?:defined\()?([A-Z_]{4,})", MODEL, re.MULTILINE))

    assert len(runs) > 10
    assert [run for run in runs if run not in PAGE] == []
    assert [switch for switch in switches if f"`{switch}" not in PAGE] == []
