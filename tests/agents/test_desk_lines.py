"""What the reference application's workers do with calls whose tenant has no free line: what is configured."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path

import pytest

from agents.desk import announcer, call_admission, make_server
from config import Role, load_settings
from config.settings import AGENTS_FILE
from coordination.livekit import WhenFull

LIMITS = AGENTS_FILE.with_name("limits.yaml")


@pytest.mark.parametrize("policy", WhenFull)
def test_each_policy_can_be_configured(tmp_path: Path, policy: WhenFull) -> None:
    file = tmp_path / "agents.yaml"
    shipped = AGENTS_FILE.read_text(encoding="utf-8")
    file.write_text(shipped.replace("when_full: queue", f"when_full: {policy.value}"), encoding="utf-8")

    assert call_admission(load_settings(file)).when_full is policy


def test_a_worker_with_limits_admits_calls_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_server(Role.BILLING)._door is None
    monkeypatch.setenv("BATON_LIMITS_FILE", str(LIMITS))

    door = make_server(Role.BILLING)._door

    assert door is not None
    assert door.admission == call_admission(load_settings())
    assert (door.admission.when_full, door.admission.patience) == (WhenFull.QUEUE, timedelta(minutes=5))
    # Job processes get it by its name.
    assert pickle.loads(pickle.dumps(door.admission)).voice is announcer


async def test_the_announcements_are_spoken() -> None:
    voice, admission = announcer(), call_admission(load_settings())

    for text in (admission.busy, admission.place.format(place=2)):
        async with voice.synthesize(text) as spoken:
            assert sum([audio.frame.duration async for audio in spoken]) > 1
    await voice.aclose()
