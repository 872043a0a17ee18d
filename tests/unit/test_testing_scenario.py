"""Scenario files: what a good one gives, and that a bad one is told all of its faults at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordination.errors import InvalidArgument
from coordination.testing import scenario as module
from coordination.testing.calls import HandoffKind
from coordination.testing.runner import answer_to, run_scenario
from coordination.testing.scenario import InvalidScenario, Scenario


def faults_of(text: str) -> str:
    with pytest.raises(InvalidScenario) as caught:
        Scenario.parse(text, source="calls/bad.yaml")
    assert "calls/bad.yaml" in str(caught.value)
    return str(caught.value)


def example() -> str:
    """The example that the module's documentation shows."""
    assert module.__doc__ is not None
    return "\n".join(line[4:] for line in module.__doc__.splitlines() if line.startswith("    "))


def test_the_documented_example_is_a_scenario() -> None:
    scenario = Scenario.parse(example())

    assert scenario.handoffs == (("receptionist", "billing"),)
    assert {step.kind for step in scenario.steps} == {
        "say", "expect", "barge_in", "silence", "type", "hang_up", "rejoin", "fault",
    }  # fmt: skip


def test_all_faults_of_a_file_are_named_at_once_each_with_its_place() -> None:
    told = faults_of(
        """
        first: ''
        voice: {rate: 9000}
        extra: 1
        steps:
          - {say: hello, type: hello}
          - sey: hello
          - expect:
          - expect: {within: -1, form: billing}
          - say: yes
          - rejoin: {}
        """
    )

    for fault in (
        "name: field required",
        "first: string should have at least 1 character",
        "voice rate: input should be less than or equal to 450",
        "extra: extra inputs are not permitted",
        "step 1: it must hold exactly one of",
        "step 2: sey: extra inputs are not permitted",
        "step 3: expect is empty",
        "step 4: expect: within: input should be greater than or equal to 0",
        "step 4: expect: form: extra inputs are not permitted",
        "step 5: say: input should be a valid string",
        "step 6: the caller cannot rejoin without having hung up",
    ):
        assert fault in told


def test_steps_that_cannot_follow_each_other_are_faults() -> None:
    told = faults_of(
        "{name: x, first: r, steps: [{say: a}, {say: b}, {hang_up: {}}, {type: c}, {rejoin: {}}, {rejoin: {}}]}"
    )

    assert "step 2: the caller has spoken already" in told
    assert "step 4: the caller has hung up" in told
    assert "step 6: the caller cannot rejoin" in told


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- say: hello", "it must be a mapping"),
        ("", "it must be a mapping"),
        ("steps: [", "it is no YAML"),
        ("{name: x, first: r, steps: []}", "steps: tuple should have at least 1 item"),
        ("{name: x, first: r, steps: hello}", "steps: input should be a valid tuple"),
        ("{name: x, first: r, steps: [hello]}", "step 1: input should be a valid dictionary"),
    ],
)
def test_what_is_no_scenario_at_all_is_refused_with_a_reason(text: str, fault: str) -> None:
    assert fault in faults_of(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidScenario, match=r"missing\.yaml"):
        Scenario.read(tmp_path / "missing.yaml")


def test_what_is_expected_after_a_turn_is_the_last_of_the_expects_that_follow() -> None:
    steps = Scenario.parse(
        """
        name: x
        first: receptionist
        steps:
          - say: one
          - expect: {from: receptionist}
          - expect: {from: billing, handoff: dispatched, parts: 2}
          - say: two
          - barge_in: {say: three, from: billing}
          - hang_up: {}
        """
    ).steps

    first, second, third = answer_to(steps, 0), answer_to(steps, 3), answer_to(steps, 4)

    assert first is not None
    assert (first.role, first.handoff, first.parts) == ("billing", HandoffKind.DISPATCHED, 2)
    assert second is not None, "who is to be interrupted must have begun to answer"
    assert second.role == "billing"
    assert third is None, "who hangs up awaits no answer"


def test_a_fault_lets_the_turn_before_it_wait_for_its_answer() -> None:
    scenario = Scenario.parse(
        """
        name: cut
        first: billing
        steps:
          - expect: {}
          - say: Go on.
          - fault: {name: kill, from: billing, after: 1}
          - expect: {from: billing, voices: 2}
        """
    )

    expected = answer_to(scenario.steps, 1)

    assert expected is not None
    assert (expected.role, expected.voices) == ("billing", 2)
    assert scenario.faults == {"kill"}


async def test_a_fault_that_nobody_makes_is_refused_before_anybody_is_called() -> None:
    scenario = Scenario.parse("{name: cut, first: billing, steps: [{fault: {name: kill}}]}")

    with pytest.raises(InvalidArgument, match="not given to its runner: kill"):
        await run_scenario(scenario, url="ws://127.0.0.1:9", api_key="key", api_secret="secret")
