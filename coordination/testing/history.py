"""The record of a run: what happened, as JSON lines on disk, so that a run that failed can be judged again.

An entry is one fact with its moment, seen from outside of the agents: what the store recorded, what the caller said and
heard, who was in the room, what was broken. All moments are `time.monotonic()` of the machine that recorded them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, Self, TextIO, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from coordination.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The first entry; `wall` (seconds since 1970) belongs to `at`."""

    entry: Literal["run"] = "run"
    at: float
    wall: float
    seed: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorEvent:
    """An event of a room, as the script that made it happen recorded it; or a grant that was announced in the room."""

    entry: Literal["event"] = "event"
    at: float
    """When it happened, by the store's clock, on the recorder's."""
    call: str
    kind: str
    agent: str = ""
    role: str = ""
    fence: int = 0
    reason: str = ""
    source: Literal["store", "room"] = "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerTurn:
    """The caller said something that wants an answer."""

    entry: Literal["turn"] = "turn"
    call: str
    turn: str
    at: float
    until: float
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The caller heard an answer to a turn. `complete`: from its begin to its end, not cut off."""

    entry: Literal["answer"] = "answer"
    call: str
    turn: str
    agent: str
    at: float
    until: float
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """An agent was audible without interruption, in whole frames of 10 ms, as the caller received it."""

    entry: Literal["voice"] = "voice"
    call: str
    agent: str
    at: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Somebody came into the room, or left it, as LiveKit told the others."""

    entry: Literal["presence"] = "presence"
    call: str
    at: float
    who: str
    """The caller's identity, or an agent's id."""
    agent: bool
    present: bool
    role: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """From when to when the caller's ears were in the room: outside of it, silence proves nothing."""

    entry: Literal["listening"] = "listening"
    call: str
    at: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultStruck:
    """A fault happened. `agents` are those whose process it hit: dead after a kill, absent during a pause."""

    entry: Literal["fault"] = "fault"
    at: float
    until: float
    """When it was undone; `at` for one that needs no undoing."""
    kind: str
    target: str
    phase: str = ""
    call: str = ""
    """The call it was aimed at; empty for one that hits all."""
    agents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A declared stretch of time in which a promise may be broken, and why."""

    entry: Literal["window"] = "window"
    at: float
    until: float
    rule: str
    """The value of a `checker.Rule`."""
    reason: str
    call: str = ""
    """Empty for all calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """The last caller had gone, for good."""

    entry: Literal["end"] = "end"
    call: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLeft:
    """A key that was in Redis when it was looked at; `ttl` in seconds, None for one that stays for ever."""

    entry: Literal["key"] = "key"
    at: float
    key: str
    ttl: float | None
    call: str = ""
    """The call it belongs to; empty if it is no room's."""


Entry = (
    RunStarted
    | FloorEvent
    | CallerTurn
    | Answer
    | Voice
    | Presence
    | Listening
    | FaultStruck
    | Window
    | CallEnded
    | KeyLeft
)
E = TypeVar("E", bound=Entry)

_ENTRY: Final[TypeAdapter[Entry]] = TypeAdapter(Annotated[Entry, Field(discriminator="entry")])


class History:
    """The entries of a run, in the order in which they became known. With a path, each is on disk at once."""

    def __init__(self, entries: Iterable[Entry] = (), *, path: Path | None = None) -> None:
        self._entries: list[Entry] = []
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", buffering=1)
        self.extend(entries)

    @classmethod
    def read(cls, path: Path) -> History:
        """What was recorded before. Raises `InvalidArgument` with the line that cannot be read."""
        history = cls()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                history.append(_ENTRY.validate_json(line))
            except ValidationError as error:
                raise InvalidArgument(f"Line {number} of {path} is no entry of a history: {error}") from error
        return history

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        if self._file is not None:
            self._file.write(_ENTRY.dump_json(entry).decode() + "\n")

    def extend(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.append(entry)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, kind: type[E], *, call: str | None = None) -> Sequence[E]:
        """The entries of one kind in order of their moments, of all calls or of one; those of no call are of all."""
        found = [
            entry
            for entry in self._entries
            if isinstance(entry, kind) and (call is None or getattr(entry, "call", "") in ("", call))
        ]
        return sorted(found, key=lambda entry: entry.at)

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that something is recorded of, in order of their first entries."""
        return tuple(dict.fromkeys(call for entry in self._entries if (call := getattr(entry, "call", ""))))
