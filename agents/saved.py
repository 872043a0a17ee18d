"""What the backend has of a test call, compared with what was said in it: by the caller's script, not by the agents."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta
from difflib import SequenceMatcher
from typing import Any, Final

import httpx

from coordination.dev.backend import BackendServer
from coordination.testing.calls import HandoffTiming
from coordination.testing.report import Report, Saved, SavedRow
from coordination.testing.scenario import Scenario

USER: Final = "ann"
"""The caller of the demo, as the backend knows her."""
ALIKE: Final = 0.6
"""How much of a sentence a recogniser must have got right for it to be that sentence."""
SAVED_WITHIN: Final = timedelta(seconds=20)


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
        """Makes the caller a known one."""
        user = {"name": "Ann", "language": "en", "preferences": {"plan": "250 megabits"}}
        (await self._client.put(f"/v1/users/{USER}", json=user)).raise_for_status()

    async def compare(self, conversation: str, scenario: Scenario) -> Saved:
        """Waits for the record that is saved last, then compares. What is not there by then is reported missing."""
        session = await self._session(conversation)
        answer = await self._client.get(f"/v1/conversations/{conversation}/messages", params={"limit": 200})
        rows: list[dict[str, Any]] = answer.json()["items"] if answer.status_code == 200 else []
        script = [step.say for step in scenario.steps if step.say is not None]
        return compare(conversation, rows, script, session)

    async def _session(self, conversation: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(SAVED_WITHIN.total_seconds()):
                while (answer := await self._client.get(f"/v1/sessions/{conversation}")).status_code != 200:
                    await asyncio.sleep(0.2)
        except TimeoutError:
            return {}
        return answer.json()


def compare(conversation: str, rows: Sequence[dict[str, Any]], script: Sequence[str], session: dict[str, Any]) -> Saved:
    """Pairs the caller's rows with the script, in order: a row answers to one sentence, a sentence to one row."""
    left = list(script)
    found: list[SavedRow] = []
    for row in rows:
        matches: str | None = None
        if row["speaker"] == "caller":
            index = next((i for i, sentence in enumerate(left) if alike(sentence, row["text"])), None)
            if index is not None:
                matches = left.pop(index)
        else:
            matches = row["text"]
        found.append(SavedRow(speaker=row["speaker"], role=row["role"], text=row["text"], matches=matches))
    return Saved(
        conversation=conversation,
        rows=tuple(found),
        missing=tuple(left),
        participants=session.get("participants"),
        messages=session.get("messages"),
    )


def alike(script: str, heard: str) -> bool:
    """Whether a recogniser may have made `heard` of `script`."""
    words = [re.findall(r"[a-z]+", text.lower()) for text in (script, heard)]
    return SequenceMatcher(None, words[0], words[1]).ratio() >= ALIKE


def judged(report: Report, saved: Saved) -> Report:
    """The report with what was saved in it; what is missing or too much makes the call not ok."""
    doubled = [row.text for row in saved.rows if row.matches is None]
    faults = [f"The database has no row for what the caller said: {text!r}" for text in saved.missing]
    faults += [f"The database has a row that nobody said: {text!r}" for text in doubled]
    if saved.messages is None:
        faults.append("The database has no record of the session.")
    elif saved.messages != len(saved.rows):
        faults.append(f"The record counts {saved.messages} messages, and the database has {len(saved.rows)}.")
    reasons = (*report.reasons, *faults)
    return report.model_copy(update={"saved": saved, "reasons": reasons, "ok": not reasons})
