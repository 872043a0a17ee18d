"""The typed data that goes along with a handoff."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from coordination.errors import InvalidArgument

MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffContext:
    """What the new agent is told. Texts of other agents are data, never instructions."""

    reason: str = ""
    """Why the caller is handed over, in a few words."""
    summary: str = ""
    """What happened so far and what the caller wants."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON values by name: invoice number, line id ..."""
    history: tuple[str, ...] = ()
    """Ids of the turns that matter; the turns themselves are in the turn log."""
    opening: str | None = None
    """What the new agent says first; rendered while it prepares."""

    def encode(self) -> str:
        """JSON. Raises `InvalidArgument` for what is not JSON, or more than 64 KiB."""
        try:
            text = json.dumps(
                {
                    "reason": self.reason,
                    "summary": self.summary,
                    "facts": dict(self.facts),
                    "history": list(self.history),
                    "opening": self.opening,
                },
                ensure_ascii=False,
                allow_nan=False,
            )
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"The context of a handoff must be JSON: {error}. Pass plain values.") from error
        if len(text.encode()) > MAX_BYTES:
            raise InvalidArgument(
                f"The context of a handoff has {len(text.encode())} bytes; at most {MAX_BYTES} are allowed. "
                "Put large data into the shared context or the backend and pass its name."
            )
        return text

    @classmethod
    def decode(cls, text: str) -> HandoffContext:
        values: dict[str, Any] = json.loads(text)
        return cls(
            reason=values["reason"],
            summary=values["summary"],
            facts=values["facts"],
            history=tuple(values["history"]),
            opening=values["opening"],
        )
