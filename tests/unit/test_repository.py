"""Habits that no other tool checks: what every file, link and lock of the repository has to look like."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("coordination", "agents", "backend", "config", "benchmarks", "tests")
MAX_LINES = 450
"""The bound that fails. The one to aim at is 400."""

SPEAKS_REDIS = ("coordination/store/", "coordination/dev/", "benchmarks/", "tests/")
KNOWS_LIVEKIT = (
    "coordination/livekit/",
    "coordination/testing/",
    "coordination/dev/",
    "agents/",
    "backend/media.py",
    "benchmarks/",
    "examples/",
    "tests/",
)


@cache
def _files() -> tuple[Path, ...]:
    """All files that are or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def _texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    for path in _files():
        if (not suffixes or path.suffix in suffixes) and "vendor" not in path.parts:
            try:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    home = re.compile(
        "|".join((r"(?<![\w.])/home/\w", "/Users" + r"/\w", r"(?<![\w.])/root" + r"\b", r"(?<![\w.])/work" + "/"))
    )

    found = [f"{name}: {match[0]}" for name, text in _texts() for match in home.finditer(text)]

    assert [line for line in found if not line.startswith("tests/unit/test_repository.py")] == []


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_a_lock_has_a_hash_for_every_package_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pinned = re.findall(r"^[A-Za-z0-9._-]+==\S+", text, re.MULTILINE)
    blocks = re.split(r"^(?=[A-Za-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]

    assert pinned
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"://|@ file|--(extra-)?index|--find-links|--trusted-host", text)


def test_every_lock_is_there() -> None:
    assert {path.name for path in ROOT.glob("requirements*.lock")} == {
        "requirements.lock",
        "requirements-build.lock",
        "requirements-dev.lock",
        "requirements-lowest.lock",
    }


def test_no_file_of_code_is_too_long() -> None:
    too_long = {
        name: lines
        for name, text in _texts(".py", ".lua")
        if name.startswith(CODE) and (lines := text.count("\n")) > MAX_LINES
    }

    assert too_long == {}


def test_every_script_is_refused_as_a_whole_or_not_at_all() -> None:
    """Without its first line a script publishes before its write fails: a phantom grant."""
    scripts = {name: text for name, text in _texts(".lua") if "/lua/lib/" not in name}

    assert scripts
    assert [name for name, text in scripts.items() if not text.startswith("#!lua")] == []


def test_every_script_says_what_it_takes_and_returns() -> None:
    silent = [
        name
        for name, text in _texts(".lua")
        if "/lua/lib/" not in name and not re.search(r"^-- .*\b(ARGV|KEYS)\b", text, re.MULTILINE)
    ]

    assert silent == []


def _imports(text: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(("package", "allowed"), [("redis", SPEAKS_REDIS), ("livekit", KNOWS_LIVEKIT)])
def test_only_the_edges_import(package: str, allowed: tuple[str, ...]) -> None:
    elsewhere = [name for name, text in _texts(".py") if not name.startswith(allowed) and package in _imports(text)]

    assert elsewhere == []


def test_no_two_test_modules_have_the_same_name() -> None:
    names = [path.name for path in _files() if path.name.startswith("test_") and path.suffix == ".py"]

    assert sorted(names) == sorted(set(names))


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_make_command_in_the_documentation_exists() -> None:
    named = {
        (name, target)
        for name, text in _texts(".md")
        for target in re.findall(r"(?:^|[`$] ?)make ([a-z][a-z-]*)", text, re.MULTILINE)
    }

    assert named
    assert {(name, target) for name, target in named if target not in _targets()} == set()


def test_make_help_lists_every_target_that_is_not_a_file() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert phony
    assert set(phony[1].split()) == set(re.findall(r"make ([a-z-]+)", listed.stdout))


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_relative_link_leads_somewhere() -> None:
    broken: list[str] = []
    for name, text in _texts(".md"):
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            if not target.exists() or (anchor and anchor not in _anchors(target.read_text())):
                broken.append(f"{name}: {link}")

    assert broken == []
