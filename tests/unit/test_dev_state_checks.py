"""What `baton doctor` says of state that is in the wrong place."""

from __future__ import annotations

import json

import pytest

from coordination.dev.checks.finding import Verdict
from coordination.dev.checks.state import COMFORTABLE, PORTABLE, check_metadata


def warnings(text: str, *, backend: bool = False) -> list[str]:
    findings = list(check_metadata("call-7", text, backend=backend))
    assert all(finding.verdict is Verdict.WARNING and "call-7" in finding.text for finding in findings)
    return [f"{finding.text} {finding.remedy}" for finding in findings]


@pytest.mark.parametrize("text", ["", '{"baton": {"v": 1}, "topic": "invoice"}'])
def test_what_belongs_there_is_no_reason_to_warn(text: str) -> None:
    assert warnings(text, backend=True) == []


@pytest.mark.parametrize(("size", "words"), [(COMFORTABLE, "sends all of it"), (PORTABLE, "not portable")])
def test_what_is_too_large_names_the_largest_keys(size: int, words: str) -> None:
    (found,) = warnings(json.dumps({"small": 1, "large": "x" * size}))

    assert words in found
    assert "Keep less under large, small" in found


@pytest.mark.parametrize("text", ["[]", "premium customer"])
def test_what_is_no_object_is_told(text: str) -> None:
    assert "no JSON object" in warnings(text)[0]


def test_copies_of_the_room_and_of_the_backend_are_told() -> None:
    text = json.dumps({"participants": ["ann"], "messages": []})

    assert len(warnings(text)) == 1
    assert "participants there, which the room knows itself" in warnings(text)[0]
    assert "messages there, and a backend is configured" in warnings(text, backend=True)[1]
