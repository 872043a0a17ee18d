"""`python -m agents`: what is wrong is said in a sentence, before anything is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.demo import SCENARIOS, SOLO, NoSuchScenario, find_scenario, workers
from coordination.testing.reading import Reader

CHECKOUT = Path(__file__).parents[2]


def agents(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agents", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in SCENARIOS.glob("*.yaml")))
def test_every_shipped_scenario_can_be_used_by_its_name(name: str) -> None:
    scenario = find_scenario(name)

    assert scenario.name == name
    known = {spec.label for spec in workers()}
    assert {role for pair in scenario.handoffs for role in pair} <= known
    assert scenario.first in {*known, SOLO}
    Reader(scenario.greetings)


def test_a_scenario_is_found_by_its_path_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text((SCENARIOS / "handoff.yaml").read_text(encoding="utf-8"), encoding="utf-8")

    assert find_scenario(str(file)) == find_scenario("handoff")


def test_an_unknown_scenario_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NoSuchScenario, match="hang-up, limits, other-order"):
        find_scenario("nothing")


def test_the_scenarios_are_no_source_of_what_the_agents_know() -> None:
    known = (CHECKOUT / "agents" / "offline" / "phrases.yaml").read_text(encoding="utf-8").lower()
    said = [step.say for path in SCENARIOS.glob("*.yaml") for step in find_scenario(path.stem).steps if step.say]
    copied = [sentence for sentence in said if len(sentence.split()) > 8 and sentence.lower().rstrip(".?") in known]

    assert copied == []


def test_a_wrong_scenario_ends_the_demo_with_the_status_for_a_wrong_command_line() -> None:
    done = agents("demo", "--scenario", "nothing")

    assert done.returncode == 2
    assert "There is no scenario 'nothing'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_livekit_server_the_demo_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    nothing = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "GOPATH": ""}

    done = agents("demo", **nothing, HTTPS_PROXY="http://127.0.0.1:1", LIVEKIT_URL="")

    assert done.returncode == 3
    for remedy in ("LIVEKIT_URL", "Docker", "Go"):
        assert remedy in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_role_is_refused() -> None:
    done = agents("start", "sales")

    assert done.returncode == 2
    assert "receptionist" in done.stderr
