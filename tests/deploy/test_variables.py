"""A variable that a manifest sets or a page names is one that somebody reads: a misspelt one would be ignored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from backend.settings import BackendSettings
from coordination.persistence import PersistenceSettings
from coordination.settings import CoordinatorSettings

FOREIGN = {"LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"}
"""Read by LiveKit itself."""


@pytest.fixture(scope="module")
def read() -> set[str]:
    """The fields of the settings, and every name in capitals that the code holds as a string."""
    root = Path(__file__).parents[2]
    fields = {**CoordinatorSettings.model_fields, **PersistenceSettings.model_fields}
    found = {f"BATON_{name.upper()}" for name in fields} | FOREIGN
    found |= {f"BACKEND_{name.upper()}" for name in BackendSettings.model_fields}
    for folder in ("coordination", "agents", "config"):
        for path in (root / folder).rglob("*.py"):
            found |= set(re.findall(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"', path.read_text()))
    return found


def test_in_the_manifests_of_kubernetes(manifests: list[dict[str, Any]], read: set[str]) -> None:
    given: set[str] = set()
    for document in manifests:
        given |= set(document.get("data", {})) | set(document.get("stringData", {}))

    assert given
    assert given <= read


def test_in_the_compose_file(compose: dict[str, Any], read: set[str]) -> None:
    given: set[str] = set()
    for service in compose["services"].values():
        given |= set(service.get("environment", {}))

    assert given
    assert given <= read


def test_in_the_documentation(root: Path, read: set[str]) -> None:
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"\b(?:BATON|BACKEND|LIVEKIT)_[A-Z_]+\b", page.read_text())}

    assert named
    assert named <= read
