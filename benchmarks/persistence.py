"""Saving a turn: how long the voice waits for it to be durable, and how fast an outbox is emptied."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, Spread
from coordination.persistence import BackendClient, ConversationTurn, PersistenceSettings, Speaker, Utterance
from coordination.persistence.outbox.box import Claim, Outbox
from coordination.persistence.outbox.file import FileOutbox
from coordination.persistence.outbox.stream import StreamOutbox

SAVES = 2000
TARGET_MS = 2.0
TEXT = "I have a question about my last bill, because it is much higher than the one before. " * 2


async def measure(redis_url: str) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        forms: list[tuple[str, FileOutbox | StreamOutbox]] = [
            ("file", FileOutbox(Path(folder) / "outbox.sqlite3")),
            ("Redis", StreamOutbox.at(redis_url)),
        ]
        for name, outbox in forms:
            await outbox.open()
            rows += [await _save(name, outbox), await _empty(name, outbox)]
            await outbox.close()
    return rows


async def _save(name: str, outbox: Outbox) -> Row:
    """One turn after the other, as in a call, while the backend is away."""
    settings = PersistenceSettings(backend_url="http://127.0.0.1:9")
    client = BackendClient(settings, outbox=outbox)
    turn = ConversationTurn(messages=(Utterance(speaker=Speaker.CALLER, text=TEXT),), role="solo")
    taken: list[float] = []
    for number in range(SAVES):
        began = time.perf_counter()
        await client.save_conversation_turn(f"call-{number % 20}", turn)
        taken.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(0.0005)
    await client.close(within=None)
    spread = Spread.of(taken)
    return Row(
        name=f"save_conversation_turn, durable in the {name} outbox",
        target=f"p99 <= {TARGET_MS:g} ms",
        measured=spread.text("ms"),
        ok=spread.p99 <= TARGET_MS,
        notes="the backend is away; durable for a killed process (file: without BATON_OUTBOX_SYNC)",
    )


async def _empty(name: str, outbox: Outbox) -> Row:
    """Claims and settles everything, as four drainers do, with a backend that takes no time."""
    count = (await outbox.statistics()).waiting
    began = time.perf_counter()
    await asyncio.gather(*(_drain(outbox) for _ in range(4)))
    taken = time.perf_counter() - began
    return Row(
        name=f"{name} outbox: claim and settle",
        target="",
        measured=f"{count / taken:,.0f} items/s (n={count})",
        ok=None,
    )


async def _drain(outbox: Outbox) -> None:
    while isinstance(claim := await outbox.claim(), Claim):
        await outbox.settle(claim, delivered=len(claim.items))
