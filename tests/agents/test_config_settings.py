"""The reference application's settings: right as they ship, and all faults named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import ProviderChoice, load_settings
from config.settings import AGENTS_FILE
from coordination.errors import InvalidSettings


def faults_of(file: Path) -> str:
    with pytest.raises(InvalidSettings) as raised:
        load_settings(file)
    return str(raised.value)


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    text = AGENTS_FILE.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    file = folder / "agents.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_shipped_file_is_right() -> None:
    settings = load_settings()

    assert settings.agents.billing.greeting.startswith("Bluebird Internet")
    assert settings.turns.end_of_turn < settings.turns.end_of_turn_at_most
    assert settings.providers is ProviderChoice.AUTO


def test_all_faults_are_named_at_once_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_PROVIDERS", "sometimes")
    file = changed(
        tmp_path,
        ("elevenlabs_voice: 21m00Tcm4TlvDq8ikWAM", "elevenlabs_voice: nobody"),
        ("  silence: 0.5", "  silence: -1"),
        ("  openai: gpt-4.1-mini", "  opeanai: gpt-4.1-mini"),
    )

    told = faults_of(file)

    assert told.startswith("The configuration has 5 faults:")
    for place in (
        "agents.yaml: agents.receptionist.elevenlabs_voice",
        "agents.yaml: turns.silence",
        "agents.yaml: models.openai",
        "agents.yaml: models.opeanai",
        "environment variable BATON_PROVIDERS",
    ):
        assert place in told


def test_a_missing_role_is_a_fault(tmp_path: Path) -> None:
    text = AGENTS_FILE.read_text(encoding="utf-8")
    begin, end = text.index("  technical:"), text.index("# Used when the key")
    file = tmp_path / "agents.yaml"
    file.write_text(text[:begin] + text[end:], encoding="utf-8")

    assert "agents.technical" in faults_of(file)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("when_full: sometimes", "lines.when_full: Input should be 'reject', 'announce' or 'queue'"),
        ("place: You are in the queue.", "lines.place: Value error, write {place} where the number is said"),
        ("place: 'You are number {place} of {all}.'", "write {place} where the number is said, and no other braces"),
        ("patience: 0", "lines.patience: Input should be greater than 0"),
    ],
)
def test_what_calls_without_a_line_hear_has_to_make_sense(tmp_path: Path, line: str, told: str) -> None:
    name = line.partition(":")[0]
    shipped = next(each for each in AGENTS_FILE.read_text().splitlines() if each.startswith(f"  {name}:"))

    assert told in faults_of(changed(tmp_path, (shipped, f"  {line}")))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("agents: [", "agents.yaml, line 1"),
        ("- a list", "must hold a mapping"),
        ("", "must hold a mapping"),
    ],
)
def test_what_is_no_configuration_is_said_to_be_none(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text(content, encoding="utf-8")

    assert told in faults_of(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere.yaml cannot be read" in faults_of(tmp_path / "nowhere.yaml")
