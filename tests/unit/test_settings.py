"""Settings from arguments and from the environment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coordination.errors import InvalidSettings
from coordination.settings import CoordinatorSettings


def test_durations_in_the_environment_are_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_FLOOR_TTL", "2.5")

    assert CoordinatorSettings().floor_ttl == timedelta(seconds=2.5)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_FLOOR_TTL", "")
    monkeypatch.setenv("BATON_REDIS_URL", "")

    assert CoordinatorSettings().floor_ttl == timedelta(seconds=2)
    with pytest.raises(InvalidSettings, match="BATON_REDIS_URL"):
        CoordinatorSettings().require_redis_url()


def test_all_faults_are_listed_with_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_FLOOR_TTL", "-1")
    monkeypatch.setenv("BATON_CALLER_GRACE", "soon")
    monkeypatch.setenv("BATON_COORDINATION", "maybe")

    with pytest.raises(InvalidSettings) as fault:
        CoordinatorSettings()

    for variable in ("BATON_FLOOR_TTL", "BATON_CALLER_GRACE", "BATON_COORDINATION"):
        assert variable in str(fault.value)
