"""The checker catches a Baton that is broken: real processes on a real store, each run with and without the mutant.

The media server is a stand-in that says what it is asked for: each agent that is sent for comes, and stays.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coordination.dev.valkey import EmbeddedValkey
from coordination.testing.checker import Bounds, Judgement, Rule, check
from coordination.testing.faults import RedisFaults, Victim, inflict, kill
from coordination.testing.history import CallEnded, FaultStruck, History, Presence
from coordination.testing.recorder import EventRecorder, record_keys

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("fleet_worker.py")
CALL, ROLE = "call", "billing"
BOUND = 20.0
A_WHILE = 2.5
"""Longer than any suspicion takes: what has not happened by then does not."""
SETTLED = 1.2
"""The watcher's own subscription must be a second old before it condemns anybody."""
LINGER = timedelta(seconds=58)
"""The keys of a room live 55 s beyond its last renewal, those of a lease for its TTL (2 s) longer."""
RENEWED_FOR = 3.0
"""Seconds after a call in which a renewal that goes on lifts the time to live beyond `LINGER`."""


@dataclass(slots=True)
class Fleet:
    """Some workers on a store of their own; the first has the agent of the call."""

    valkey: EmbeddedValkey
    history: History
    recorder: EventRecorder
    processes: list[asyncio.subprocess.Process] = field(default_factory=list[asyncio.subprocess.Process])
    said: list[tuple[float, dict[str, Any]]] = field(default_factory=list[tuple[float, dict[str, Any]]])

    async def start(self, name: str, *call: str, mutant: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(WORKER),
            self.valkey.url,
            name,
            *call,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_MUTANT": mutant},
        )
        self.processes.append(process)

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.said.append((time.monotonic(), json.loads(line)))

    def told(self, what: str) -> list[tuple[float, dict[str, Any]]]:
        return [(at, entry) for at, entry in self.said if entry["what"] == what]

    async def until(self, what: str, count: int = 1) -> None:
        async with asyncio.timeout(BOUND):
            while len(self.told(what)) < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def fleet(mutant: str) -> AsyncIterator[Fleet]:
    history = History()
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(EmbeddedValkey())
        recorder = await stack.enter_async_context(EventRecorder(history, call=CALL, room=CALL, redis_url=valkey.url))
        running = Fleet(valkey, history, recorder)
        listening = await stack.enter_async_context(asyncio.TaskGroup())
        try:
            # The watch is on before the call begins, and none of the watchers has the agent.
            for name in ("w1", "w2"):
                await running.start(name, mutant=mutant)
            for process in running.processes:
                listening.create_task(running.listen(process))
            await running.until("watcher")
            await running.start("first", CALL, ROLE, "holder", mutant=mutant)
            listening.create_task(running.listen(running.processes[-1]))
            await running.until("holds")
            await asyncio.sleep(SETTLED)
            yield running
        finally:
            for process in running.processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()


async def the_worker_is_killed(running: Fleet) -> None:
    strike = await inflict(kill(Victim.of(running.processes[-1].pid, "the worker")))
    at = strike.at.monotonic
    running.history.append(
        FaultStruck(at=at, until=at, kind=strike.kind, target=strike.target, call=CALL, agents=("agent-of-first",))
    )
    await running.until("bring")


async def subscriptions_end_again_and_again(running: Fleet) -> None:
    faults = RedisFaults(running.valkey)
    until = time.monotonic() + A_WHILE
    while time.monotonic() < until and not running.told("silence"):
        await inflict(faults.drop_subscriptions())
        await asyncio.sleep(0.005)


async def judged(mutant: str, scenario: Callable[[Fleet], Awaitable[None]]) -> Judgement:
    async with fleet(mutant) as running:
        await scenario(running)
        await asyncio.sleep(A_WHILE)
        await running.recorder.catch_up()
        # The media server removes whom it is asked to, and nobody else: LiveKit keeps a dead agent for 20 s.
        first = {"call": CALL, "who": "agent-of-first", "agent": True, "role": ROLE}
        running.history.append(Presence(at=running.told("holds")[0][0], present=True, **first))
        for at, _ in running.told("silence")[:1]:
            running.history.append(Presence(at=at, present=False, **first))
        for number, (at, entry) in enumerate(running.told("bring")):
            who = f"replacement-{number}"
            running.history.append(Presence(call=CALL, at=at, who=who, agent=True, present=True, role=entry["role"]))
        running.history.append(CallEnded(call=CALL, at=time.monotonic()))
    return check(running.history, bounds=Bounds(twins=timedelta(seconds=1), holderless=timedelta(minutes=1)))


@pytest.mark.parametrize(
    ("mutant", "scenario", "rule"),
    [
        ("two watchers", the_worker_is_killed, Rule.ONE_OF_A_ROLE),
        ("no silencing", the_worker_is_killed, Rule.SILENCED),
        ("no blip guard", subscriptions_end_again_and_again, Rule.UNTOUCHED),
    ],
    ids=["two watchers", "no silencing", "no blip guard"],
)
async def test_a_broken_watch_is_caught_where_the_real_one_passes(
    mutant: str, scenario: Callable[[Fleet], Awaitable[None]], rule: Rule
) -> None:
    real, mutated = await asyncio.gather(judged("", scenario), judged(mutant, scenario))

    assert real.ok, str(real)
    assert real.grants == 1
    assert mutated.broken(rule), f"{rule} does not notice: {mutated}"


@pytest.mark.parametrize("mutant", ["", "renewal never stops"])
async def test_a_renewal_that_never_stops_is_caught_where_one_that_ends_passes(mutant: str) -> None:
    async with EmbeddedValkey() as valkey:
        history = History()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("brief_holder.py")),
            valkey.url,
            CALL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_MUTANT": mutant},
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(BOUND):
                assert await process.stdout.readline() == b"over\n"
            history.append(CallEnded(call=CALL, at=time.monotonic()))
            await asyncio.sleep(RENEWED_FOR)
            await record_keys(history, redis_url=valkey.url, rooms={CALL: CALL})
        finally:
            process.kill()
            await process.wait()
    judgement = check(history, bounds=Bounds(linger=LINGER))

    assert bool(judgement.broken(Rule.NOTHING_LEFT)) is bool(mutant), str(judgement)
