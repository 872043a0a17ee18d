"""Scenarios: what a caller does in a test call, and what should follow, as data in YAML files.

No agent ever sees them. A file is checked as a whole before anybody is called: all its faults are named at once,
each with its place.

    name: refund
    first: receptionist                  # the role that is sent into the room when the call begins
    greetings: [how can i help you]      # what may be heard once, when the call begins
    steps:
      - expect: {within: 10}             # an agent speaks, and has finished
      - say: I have a question about my last bill
      - expect: {from: billing, handoff: dispatched}
      - say: Why is it so high?
      - barge_in: {after: 1.0, say: "Sorry, is that with tax?"}
      - expect: {}
      - silence: 4
      - type: my number is 4711
      - expect: {}
      - say: Connect me to somebody else please
      - hang_up: {after: 0.5}
      - rejoin: {after: 2}
      - expect: {}
      - fault: {name: kill, from: billing, after: 1.5}   # what that does is given to the runner

Durations are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from coordination.errors import CoordinationError
from coordination.testing.calls import HandoffKind
from coordination.testing.speech import CALLER, Voice

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]
_Seconds = Annotated[float, Field(ge=0, le=600)]


class InvalidScenario(CoordinationError, ValueError):
    """A scenario file cannot be used; the text lists all that is wrong with it, each with its place."""

    def __init__(self, source: str, faults: tuple[str, ...]) -> None:
        self.source, self.faults = source, faults
        listed = "\n".join(f"  - {fault}" for fault in faults)
        super().__init__(f"The scenario {source} cannot be used; correct this:\n{listed}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Expect(_Strict):
    """An agent speaks and has finished: the caller goes on when nobody has spoken for `settle`."""

    role: _Name | None = Field(default=None, alias="from")
    """Who has the last word; unset, it must be whoever spoke before."""
    handoff: HandoffKind | None = None
    """Whether the agent must have been in the room before, or must have been sent for."""
    within: _Seconds = 20.0
    """How long to wait for the last word of `from` to begin."""
    settle: Annotated[float, Field(ge=0.2, le=30)] = 1.2
    parts: Annotated[int, Field(ge=1, le=10)] = 1
    """How many separate answers, with long pauses between them, are welcome."""
    voices: Annotated[int, Field(ge=1, le=10)] = 1
    """How many agents of `from` may share the answer: two, where another one finishes what a lost one began."""


class BargeIn(_Strict):
    """The caller speaks while an agent does, once it has been heard for `after`."""

    say: _Text
    role: _Name | None = Field(default=None, alias="from")
    """Who is interrupted; unset, it must be whoever spoke before."""
    after: _Seconds = 1.0
    within: _Seconds = 20.0
    """How long to wait for an agent to begin."""


class HangUp(_Strict):
    """The caller leaves the room."""

    after: _Seconds = 0.0


class Rejoin(_Strict):
    """The caller comes back, under the same identity."""

    after: _Seconds = 1.0


class Fault(_Strict):
    """Something is done to the system; the runner knows what the name stands for."""

    name: _Name
    role: _Name | None = Field(default=None, alias="from")
    """Whose answer it strikes, once that has been heard for `after`; unset, it strikes `after` the step before."""
    after: _Seconds = 0.0
    within: _Seconds = 20.0
    """How long to wait for `from` to begin."""


class Step(_Strict):
    """One thing that happens; exactly one of its fields is set."""

    say: _Text | None = None
    expect: Expect | None = None
    barge_in: BargeIn | None = None
    silence: _Seconds | None = None
    """The caller says nothing for so long; agents may ask whether anybody is there."""
    type: _Text | None = None
    """The caller sends text instead of speaking."""
    hang_up: HangUp | None = None
    rejoin: Rejoin | None = None
    fault: Fault | None = None

    @property
    def kind(self) -> str:
        """The name of the field that is set."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    @property
    def speaks(self) -> bool:
        """Whether it is a turn of the caller."""
        return self.kind in ("say", "barge_in", "type")


_KINDS = tuple(Step.model_fields)


class CallerVoice(_Strict):
    """How the caller sounds; see `Voice`."""

    name: _Name = CALLER.name
    variant: str = CALLER.variant
    pitch: Annotated[int, Field(ge=0, le=99)] = CALLER.pitch
    rate: Annotated[int, Field(ge=80, le=450)] = CALLER.rate

    def voice(self) -> Voice:
        return Voice(name=self.name, variant=self.variant, pitch=self.pitch, rate=self.rate)


class Scenario(_Strict):
    """A test call."""

    name: _Name
    description: str = ""
    first: _Name
    """The role that is dispatched when the call begins."""
    voice: CallerVoice = CallerVoice()
    calls: Annotated[int, Field(ge=1, le=20)] = 1
    """How many callers do it at once, each in a room of their own."""
    greetings: tuple[_Text, ...] = ()
    """Phrases that only the opening may hold. Three words or more each, of those that a dictionary has."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]

    @property
    def roles(self) -> tuple[str, ...]:
        """Whom the caller is to meet, in order of appearance."""
        named = [self.first, *(step.expect.role for step in self.steps if step.expect and step.expect.role)]
        return tuple(dict.fromkeys(named))

    @property
    def faults(self) -> frozenset[str]:
        """The names of the faults in it."""
        return frozenset(step.fault.name for step in self.steps if step.fault is not None)

    @property
    def handoffs(self) -> tuple[tuple[str, str], ...]:
        """The handoffs that the steps expect: pairs of roles."""
        roles = [self.first, *(step.expect.role for step in self.steps if step.expect and step.expect.role)]
        return tuple((old, new) for old, new in pairwise(roles) if old != new)

    @classmethod
    def read(cls, path: Path) -> Scenario:
        """Reads a file. Raises `InvalidScenario`, which lists all of its faults."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidScenario(str(path), (f"it cannot be read: {error}",)) from error
        return cls.parse(text, source=str(path))

    @classmethod
    def parse(cls, text: str, *, source: str = "in memory") -> Scenario:
        """Reads YAML text. Raises `InvalidScenario`, which lists all of its faults."""
        try:
            content: object = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidScenario(source, (f"it is no YAML: {' '.join(str(error).split())}",)) from error
        if not isinstance(content, Mapping):
            raise InvalidScenario(source, ("it must be a mapping with name, first and steps",))
        fields = cast(Mapping[str, Any], content)
        faults = [*_step_faults(fields.get("steps")), *_order_faults(fields.get("steps"))]
        scenario: Scenario | None = None
        try:
            scenario = cls.model_validate(fields)
        except ValidationError as error:
            faults = [*(_fault(each) for each in error.errors()), *faults]
        if faults or scenario is None:
            raise InvalidScenario(source, tuple(faults))
        return scenario


def _step_faults(steps: object) -> Iterator[str]:
    """What is wrong with single steps and would not be named well by their schema."""
    if not isinstance(steps, list):
        return
    for number, step in enumerate(cast(list[object], steps), start=1):
        if not isinstance(step, Mapping):
            continue
        kinds = [name for name in _KINDS if name in step]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none"
            yield f"step {number}: it must hold exactly one of {', '.join(_KINDS)}; it holds {found}"
        elif cast(Mapping[str, object], step)[kinds[0]] is None:
            yield f"step {number}: {kinds[0]} is empty; write {{}} where there is nothing to say about it"


def _order_faults(steps: object) -> Iterator[str]:
    """What is wrong with the order of the steps, whatever else is wrong with them."""
    connected, spoke = True, False
    for number, step in enumerate(cast(list[object], steps) if isinstance(steps, list) else [], start=1):
        kinds = [name for name in _KINDS if isinstance(step, Mapping) and name in step]
        if kinds == ["rejoin"] and connected:
            yield f"step {number}: the caller cannot rejoin without having hung up"
        if kinds and kinds not in (["rejoin"], ["fault"]) and not connected:
            yield f"step {number}: the caller has hung up; only rejoin can follow"
        if kinds in (["say"], ["type"]) and spoke:
            yield f"step {number}: the caller has spoken already; put an expect before it, or one sentence for both"
        connected = kinds == ["rejoin"] or (connected and kinds != ["hang_up"])
        spoke = kinds in (["say"], ["type"], ["barge_in"]) or (spoke and kinds == ["fault"])


def _fault(error: Any) -> str:
    """One of pydantic's errors, with its place counted as people count."""
    parts = [f"{int(part) + 1}" if isinstance(part, int) else str(part) for part in error["loc"]]
    place = ": ".join([" ".join(parts[:2]).replace("steps ", "step "), *parts[2:]]) if parts else "the file"
    return f"{place}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def seconds(value: float) -> timedelta:
    """A duration of a scenario."""
    return timedelta(seconds=value)
