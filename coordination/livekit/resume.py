"""Where a call stood when its agent was lost, and how the next one goes on: a pure judgement over the turn log.

A question that waits for its answer is answered. A sentence that was cut off is said to its end, from the beginning of
the clause in which the voice stopped: the caller hears a few words twice rather than not at all. Otherwise the next
agent waits. A word of apology comes first only if the silence was long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from coordination.room.turns import Speaker, Turn

CHARACTERS_PER_SECOND: Final = 14.0
"""Of ordinary speech. An estimate on the low side, so that the rest begins too early rather than too late."""
WORTH_SAYING: Final = 8
"""Characters: of what was left fewer than that, the caller has heard the sentence."""
_BOUNDARY: Final = re.compile(r"(?<=[.!?;:,…])\s+|(?<=[。！？；，])")


class ResumeAction(StrEnum):
    ANSWER = "answer"
    """The caller waits for an answer."""
    FINISH = "finish"
    """The lost agent was cut off."""
    WAIT = "wait"
    """Nothing was open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """How to go on."""

    action: ResumeAction
    rest: str = ""
    """What is left to say of the cut off sentence; only with `FINISH`."""
    silence: timedelta = timedelta(0)
    """For how long the caller has waited; zero where nothing was open, for then nobody waits for this agent."""


def plan_resume(turns: Sequence[Turn], *, now: datetime) -> Resume | None:
    """How to continue after the last of `turns`; None if no agent has spoken, so that the call has not begun.

    `now` is the server's clock, as the times of the turns are.
    """
    if not any(turn.speaker is Speaker.AGENT for turn in turns):
        return None
    last = turns[-1]
    silence = max(timedelta(0), now - last.at - timedelta(seconds=last.played or 0.0))
    if last.speaker is Speaker.CALLER:
        return Resume(action=ResumeAction.ANSWER, silence=silence)
    rest = "" if last.ended else rest_of(last.text, last.played or 0.0)
    if not rest:
        return Resume(action=ResumeAction.WAIT)
    return Resume(action=ResumeAction.FINISH, rest=rest, silence=silence)


def rest_of(text: str, seconds: float) -> str:
    """What of `text` has not been said after so many seconds of it, from the beginning of the clause that was cut."""
    position = int(seconds * CHARACTERS_PER_SECOND)
    if len(text) - position < WORTH_SAYING:
        return ""
    begins = [0, *(match.end() for match in _BOUNDARY.finditer(text))]
    begin = max(at for at in begins if at <= position)
    return text[begin:].strip()
