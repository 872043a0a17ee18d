"""What the backend has of a test call, compared with what was said in it: the caller's script and the recording.

The agents' own histories are not asked. A row of the caller stands for the turn in whose time it was logged; a row of
an agent stands for what was heard of that very agent at that time.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any, Final

import httpx

from coordination.dev.backend import BackendServer
from coordination.ids import AgentId
from coordination.livekit.identity import agent_identity
from coordination.testing.analysis import moment
from coordination.testing.calls import Call, HandoffTiming
from coordination.testing.hearing import Hearing, Span, Utterance
from coordination.testing.recording import FRAME
from coordination.testing.report import Report, Saved, SavedRow
from coordination.testing.runner import monotonic

USER: Final = "ann"
"""The caller of the demo, as the backend knows her."""
ALIKE: Final = 0.6
"""How much of a sentence a recogniser must have got right for it to be that sentence."""
SAVED_WITHIN: Final = timedelta(seconds=30)
"""For the record of the call, which is saved last: also that of a call whose agents were lost."""
NEAR: Final = timedelta(seconds=4)
"""Between the moment in which a text is logged and the one in which it is heard."""
LONGEST: Final = timedelta(seconds=30)
"""Of an agent's turn for which nobody says how much was heard."""
PASSAGE: Final = timedelta(milliseconds=400)
"""Less of a voice is no word: the first sound of an answer that was interrupted at once."""
_PLAN: Final = {"text": "your plan with 500 megabits", "cents": 4490}
_EXTRA: Final = {"text": "the second router that was sent to you on the fifth", "cents": 3000}
INVOICES: Final[dict[str, dict[str, Any]]] = {
    "BB-1010": {"issued_on": "2026-10-01", "due_on": "2026-10-20", "items": [_PLAN], "status": "paid"},
    "BB-1011": {"issued_on": "2026-11-01", "due_on": "2026-11-20", "items": [_PLAN, _EXTRA]},
}
"""The caller's. Other amounts than the made-up ones, so that one hears which are read."""


class NoWatch:
    """In place of a watch on Redis, where there is none: remembers the room's sid, which names the conversation."""

    def __init__(self) -> None:
        self.sid = ""

    async def start(self, *, room: str, sid: str) -> None:
        self.sid = sid

    async def committed(self) -> Sequence[HandoffTiming]:
        return ()


class Ledger:
    """The demo's own look into the backend, over HTTP like everybody's."""

    def __init__(self, backend: BackendServer) -> None:
        headers = {"Authorization": f"Bearer {backend.token}"}
        self._client = httpx.AsyncClient(base_url=backend.url, headers=headers, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def introduce(self) -> None:
        """Makes the caller a known one, who has been sent invoices."""
        user = {"name": "Ann", "language": "en", "preferences": {"plan": "500 megabits"}}
        (await self._client.put(f"/v1/users/{USER}", json=user)).raise_for_status()
        for number, invoice in INVOICES.items():
            body = {"user_id": USER, **invoice}
            (await self._client.put(f"/v1/invoices/{number}", json=body)).raise_for_status()

    async def compare(self, conversation: str, call: Call) -> Saved:
        """Waits for the record that is saved last, then compares. What is not there by then is reported missing."""
        session = await self._session(conversation)
        rows = await self._items(f"/v1/conversations/{conversation}/messages", limit=200)
        tickets = await self._items("/v1/tickets", user_id=USER)
        return compare(conversation, rows, call, session, tickets)

    async def _items(self, path: str, **parameters: str | int) -> list[dict[str, Any]]:
        answer = await self._client.get(path, params=parameters)
        return answer.json()["items"] if answer.status_code == 200 else []

    async def _session(self, conversation: str) -> dict[str, Any]:
        """The record, when it says that the call has ended."""
        try:
            async with asyncio.timeout(SAVED_WITHIN.total_seconds()):
                while True:
                    answer = await self._client.get(f"/v1/sessions/{conversation}")
                    if answer.status_code == 200 and answer.json()["ended_at"]:
                        return answer.json()
                    await asyncio.sleep(0.2)
        except TimeoutError:
            return {}


def compare(
    conversation: str,
    rows: Sequence[dict[str, Any]],
    call: Call,
    session: dict[str, Any],
    tickets: Sequence[dict[str, Any]] = (),
) -> Saved:
    """Pairs rows with turns of the caller and with passages of the recording; says what has no partner."""
    turns, passages = _Turns(call), _Passages(call)
    matches = [turns.of(row) if row["speaker"] == "caller" else passages.of(row) for row in rows]
    found = [
        SavedRow(speaker=row["speaker"], role=row["role"], text=row["text"], matches=match)
        for row, match in zip(rows, matches, strict=True)
    ]
    twice = Counter((row["speaker"], row["agent"], row["text"], row["at"]) for row in rows)
    return Saved(
        conversation=conversation,
        rows=tuple(found),
        said=len(turns.texts) + len(passages.heard),
        missing=(*turns.missing(), *passages.missing(rows)),
        doubled=tuple(text for (_, _, text, _), count in twice.items() if count > 1),
        in_order=turns.in_order and _ascending(rows),
        participants=session.get("participants"),
        messages=session.get("messages"),
        handoffs=session.get("handoffs"),
        roles=tuple(session.get("roles") or ()),
        tickets=tuple(f"{ticket['kind']} {ticket['number']}" for ticket in tickets),
    )


def _at(row: dict[str, Any]) -> float:
    """When a row was said, on this process's `time.monotonic()`."""
    return monotonic(datetime.fromisoformat(row["at"]).timestamp())


def _ascending(rows: Sequence[dict[str, Any]]) -> bool:
    """Within what one agent wrote under one fence, time only grows."""
    writers = {(row["agent"], row["fence"]) for row in rows}
    series = [[row["at"] for row in rows if (row["agent"], row["fence"]) == writer] for writer in writers]
    return all(one <= other for each in series for one, other in pairwise(map(datetime.fromisoformat, each)))


class _Turns:
    """What the caller said, by the script."""

    def __init__(self, call: Call) -> None:
        said = [turn for turn in call.turns if turn.kind.by_caller]
        self.texts = [turn.text for turn in said]
        self._begins = [turn.started for turn in said]
        self._found: list[int] = []

    def of(self, row: dict[str, Any]) -> str | None:
        """The sentence in whose time the row was logged: from its begin to that of the next one."""
        at = _at(row)
        index = max((i for i, begin in enumerate(self._begins) if begin <= at), default=None)
        if index is None:
            return None
        self._found.append(index)
        return self.texts[index]

    def missing(self) -> list[str]:
        return [text for i, text in enumerate(self.texts) if i not in self._found]

    @property
    def in_order(self) -> bool:
        return self._found == sorted(self._found)


@dataclass(frozen=True, slots=True)
class _Window:
    """When a row of an agent may have been heard, in frames of the recording."""

    identity: str
    span: Span


class _Passages:
    """What was heard of the agents."""

    def __init__(self, call: Call) -> None:
        self._recording = call.recording
        self.heard = [each for each in Hearing(call.recording).utterances() if each.span.duration >= PASSAGE]

    def of(self, row: dict[str, Any]) -> str | None:
        """Where the row is heard; None for one that is not, although it was played."""
        window = self._window(row)
        found = next((each for each in self.heard if _within(each, window)), None)
        if found is not None:
            return f"heard at {moment(max(found.span.start, window.span.start))}"
        played = row["played_seconds"]
        return "not heard" if played is not None and played < PASSAGE.total_seconds() else None

    def missing(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Passages for which there is no row of the agent that spoke them."""
        windows = [self._window(row) for row in rows if row["speaker"] == "agent" and row["played_seconds"] != 0]
        lost = [each for each in self.heard if not any(_within(each, window) for window in windows)]
        return [f"what {each.label} says at {moment(each.span.start)}" for each in lost]

    def _window(self, row: dict[str, Any]) -> _Window:
        at, played = _at(row), row["played_seconds"]
        lasts = timedelta(seconds=played) if played is not None else LONGEST
        begin = self._recording.frame_at(at) - NEAR // FRAME
        span = Span(start=begin, end=begin + (2 * NEAR + lasts) // FRAME)
        return _Window(agent_identity(AgentId(row["agent"] or "")), span)


def _within(passage: Utterance, window: _Window) -> bool:
    return passage.speaker == window.identity and passage.span.overlap(window.span) is not None


def alike(script: str, heard: str) -> bool:
    """Whether a recogniser may have made `heard` of `script`."""
    words = [re.findall(r"[a-z]+", text.lower()) for text in (script, heard)]
    return SequenceMatcher(None, words[0], words[1]).ratio() >= ALIKE


def judged(report: Report, saved: Saved) -> Report:
    """The report with what was saved in it; what is missing or too much makes the call not ok."""
    nobody = [row.text for row in saved.rows if row.matches is None]
    faults = [f"The database has no row for what was said: {text!r}" for text in saved.missing]
    faults += [f"The database has a row that nobody said: {text!r}" for text in nobody]
    faults += [f"The database has twice what was said once: {text!r}" for text in saved.doubled]
    if not saved.in_order:
        faults.append("The rows of the database are not in the order in which they were said.")
    if saved.messages is None:
        faults.append("The database has no record of the session.")
    elif saved.messages != len(saved.rows):
        faults.append(f"The record counts {saved.messages} messages, and the database has {len(saved.rows)}.")
    reasons = (*report.reasons, *faults)
    return report.model_copy(update={"saved": saved, "reasons": reasons, "ok": not reasons})
