"""What happens in a test call, as it happens, for whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class What(StrEnum):
    """The kinds of things that happen."""

    CALLER_SAYS = "caller_says"
    CALLER_TYPES = "caller_types"
    CALLER_BARGES_IN = "caller_barges_in"
    CALLER_SILENT = "caller_silent"
    CALLER_HANGS_UP = "caller_hangs_up"
    CALLER_JOINS = "caller_joins"
    AGENT_JOINS = "agent_joins"
    AGENT_LEAVES = "agent_leaves"
    AGENT_SAYS = "agent_says"
    """`text` is what the agent published as its transcript: to read along, not evidence."""
    UNDERSTOOD = "understood"
    """`text` is what speech to text made of the caller's words; `who` has the floor, as far as is known."""
    FLOOR = "floor"
    """The room was told that the floor was granted."""
    FAULT = "fault"
    """Something is done to the system; `text` is its name in the scenario."""
    MISSED = "missed"
    """Something that the scenario waits for did not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened."""

    what: What
    at: timedelta
    """Since the call began."""
    who: str = ""
    """The role of an agent, its identity if it has none; empty for the caller."""
    text: str = ""
    fence: int | None = None


Tell = Callable[[Happening], None]
"""Called in the event loop for each happening; returns at once and raises nothing."""


def tell_nobody(_happening: Happening) -> None:
    """For calls that nobody watches."""
