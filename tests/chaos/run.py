"""A chaos run: calls that follow each other in a few slots, a schedule of faults, and a history of it all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from coordination.testing.checker import Rule
from coordination.testing.faults import (
    Fault,
    FaultImpossible,
    FaultKind,
    Strike,
    black_hole,
    cut,
    delay,
    inflict,
    kill,
    pause,
    restart_livekit,
)
from coordination.testing.history import FaultStruck, History, RunStarted, Window
from coordination.testing.recorder import record_keys
from coordination.testing.schedule import Cell, Coverage, Phase, Schedule
from tests.chaos.calls import ChaosCall, Missed, calling
from tests.chaos.rig import ChaosWorker, Job, Rig

logger = logging.getLogger(__name__)

SOME_TIME = timedelta(seconds=3)
"""Longer than a lease lives: who is stopped or cut off for so long must have been replaced."""
SLOW = timedelta(milliseconds=150)
"""Each way: slower than any network that Redis should be reached by, and far below what a lease bears."""
WORDS_IN_FLIGHT = 2.0
"""Seconds for which what the caller said may be known only to the process that dies."""
WORDS_UNHEARD = 8.0
"""Seconds from a death until somebody else listens: nothing hears the caller in between."""
LOOK_EVERY, STALL = 0.05, 0.2
"""Seconds between looks at the load, and of delay from which tones are misread."""
GRACE = 2.0
"""By how much a run may be longer than it was to be, where planned cells are missing."""
STALL_BEFORE, STALL_AFTER = 3.0, 5.0
"""Seconds around a stall in which its effects are seen: a turn and its answer."""

Aim = Callable[["ChaosRun", ChaosCall], "Target | None"]


@dataclass(frozen=True, slots=True)
class Target:
    """A fault, and whom it hits of the call it is aimed at."""

    fault: Fault
    hits: tuple[Job, ...] = ()
    everywhere: bool = False
    """It hits all calls."""
    spreads: bool = False
    """It may be felt in other calls, in which nothing is aimed at."""
    loses_words: bool = True
    """What the caller says meanwhile may be lost."""


def _holder(make: Callable[[Job], Fault]) -> Aim:
    def aim(_run: ChaosRun, call: ChaosCall) -> Target | None:
        job = call.holder()
        return Target(make(job), (job,)) if job is not None else None

    return aim


def _standby(make: Callable[[Job], Fault]) -> Aim:
    def aim(_run: ChaosRun, call: ChaosCall) -> Target | None:
        job = call.standby()
        return Target(make(job), (job,), loses_words=False) if job is not None else None

    return aim


def _redis(make: Callable[[ChaosRun], Fault]) -> Aim:
    def aim(run: ChaosRun, _call: ChaosCall) -> Target | None:
        return Target(make(run), everywhere=True, loses_words=False)

    return aim


def _worker(make: Callable[[ChaosWorker], Fault], *, hits: bool, loses_words: bool) -> Aim:
    """A fault of the holder's worker, which has agents of other calls as well."""

    def aim(run: ChaosRun, call: ChaosCall) -> Target | None:
        job = call.holder()
        if job is None:
            return None
        worker = run.rig.worker_of(job)
        if worker is None:
            raise FaultImpossible(f"nobody knows whose {job.victim.name} is")
        served = run.jobs_of(worker) if hits else ()
        return Target(make(worker), served, spreads=True, loses_words=loses_words)

    return aim


def _livekit(run: ChaosRun, _call: ChaosCall) -> Target | None:
    return Target(restart_livekit(run.rig.livekit), everywhere=True)


def _killed(worker: ChaosWorker) -> Fault:
    """The worker and all its jobs, as when its host dies; another one is started at once."""

    async def begin() -> None:
        worker.stop()

    async def end() -> None:
        worker.start()

    return Fault(kind=FaultKind.KILL, target=f"the worker {worker.name}", begin=begin, end=end)


FAULTS: dict[str, Aim] = {
    "kill the holder": _holder(lambda job: kill(job.victim)),
    "kill the standby": _standby(lambda job: kill(job.victim)),
    "stop the holder": _holder(lambda job: pause(job.victim, lasting=SOME_TIME)),
    "restart Redis": _redis(lambda run: run.rig.redis.restart()),
    "wipe Redis": _redis(lambda run: run.rig.redis.wipe()),
    "Redis comes back empty": _redis(lambda run: run.rig.redis.restart_empty()),
    "Redis is away": _redis(lambda run: run.rig.redis.stop(lasting=SOME_TIME)),
    "drop all subscriptions": _redis(lambda run: run.rig.redis.drop_subscriptions()),
    "Redis hangs": _redis(lambda run: run.rig.redis.hang(lasting=SOME_TIME)),
    "Redis fails over": _redis(lambda run: run.rig.redis.fail_over()),
    "Redis comes back older": _redis(lambda run: run.rig.redis.restart_old()),
    "kill the holder's worker": _worker(_killed, hits=True, loses_words=True),
    "stop the holder's worker": _worker(
        lambda worker: pause(worker.victim(), lasting=SOME_TIME), hits=False, loses_words=False
    ),
    "cut the link to Redis": _worker(
        lambda worker: cut(worker.redis, name=f"{worker.name} to Redis"), hits=False, loses_words=False
    ),
    "slow link to Redis": _worker(
        lambda worker: delay(worker.redis, by=SLOW, lasting=SOME_TIME, name=f"{worker.name} to Redis"),
        hits=False,
        loses_words=False,
    ),
    "nothing reaches Redis": _worker(
        lambda worker: black_hole(worker.redis, lasting=SOME_TIME, name=f"{worker.name} to Redis"),
        hits=True,
        loses_words=True,
    ),
    "cut the link to LiveKit": _worker(
        lambda worker: cut(worker.livekit, name=f"{worker.name} to LiveKit"), hits=True, loses_words=True
    ),
    "nothing reaches LiveKit": _worker(
        lambda worker: black_hole(worker.livekit, lasting=SOME_TIME, name=f"{worker.name} to LiveKit"),
        hits=False,
        loses_words=True,
    ),
    "restart LiveKit": _livekit,
}
"""What a team of two survives: there is always a standby, and the run sends for the one that is missing."""


PREPARATIONS: dict[str, Callable[[Rig], Awaitable[None]]] = {
    "Redis fails over": lambda rig: rig.redis.replicate(),
    "Redis comes back older": lambda rig: rig.redis.remember(),
}
"""What is done before the phase is brought about: the backup knows nothing of what comes in between."""


def plan(schedule: Schedule) -> frozenset[Cell]:
    """What a short run has time for: every fault once, and every phase as often as that makes."""
    faults, phases = schedule.coverage.faults, schedule.coverage.phases
    turns: list[Phase] = []
    while len(turns) < len(faults):
        turns += schedule.chance.sample(phases, len(phases))
    return frozenset(Cell(fault=fault, phase=phase) for fault, phase in zip(faults, turns, strict=False))


@dataclass(slots=True)
class ChaosRun:
    """One run. `run` makes it; the history is judged afterwards."""

    rig: Rig
    history: History
    schedule: Schedule
    faults: dict[str, Aim]
    planned: frozenset[Cell] = frozenset()
    """The cells that come before all others."""
    slots: int = 1
    """How many calls there are at once."""
    replaced_within: float = 3.0
    """How long a role may be missing before the run sends for another agent itself."""
    steps_per_call: int = 7
    stalls: int = 0
    """How often the machine was too busy for what it should carry."""
    missed: list[str] = field(default_factory=list[str])
    dispatches: int = 0
    _until: float = 0.0
    _at_most: float = 0.0
    _striking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _calls: dict[str, ChaosCall] = field(default_factory=dict[str, ChaosCall])
    _rooms: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, rig: Rig, history: History, *, seed: int | None = None, calls: int = 1) -> ChaosRun:
        """A run of every fault; its seed decides what comes when."""
        schedule = Schedule(Coverage(list(FAULTS)), seed=seed)
        history.append(RunStarted(at=time.monotonic(), wall=time.time(), seed=schedule.seed))
        return cls(rig, history, schedule, FAULTS, planned=plan(schedule), slots=calls)

    async def run(self, minutes: float) -> None:
        """Calls and faults for so long, and on until all that was planned has come about; then nothing may be left.

        A machine that is slow takes longer, and never for more than `GRACE` times as long.
        """
        self._until = time.monotonic() + 60 * minutes
        self._at_most = time.monotonic() + 60 * minutes * GRACE
        load = asyncio.create_task(self._watch_load(), name="watch the load")
        try:
            async with asyncio.TaskGroup() as group:
                for slot in range(self.slots):
                    group.create_task(self._slot(slot), name=f"slot {slot}")
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        await record_keys(self.history, redis_url=self.rig.valkey.url, rooms=self._rooms)

    async def _watch_load(self) -> None:
        """A machine that stalls this process stalls the agents, too: what is late or misheard then proves nothing.

        It excuses neither two voices nor two holders, and the judgement counts what it excused.
        """
        while True:
            due = time.monotonic() + LOOK_EVERY
            await asyncio.sleep(LOOK_EVERY)
            late = time.monotonic() - due
            if late > STALL:
                self.stalls += 1
                for rule in (Rule.ANSWERED, Rule.A_HOLDER):
                    reason = f"the machine stalled for {1000 * late:.0f} ms"
                    begin, end = due - STALL_BEFORE, due + late + STALL_AFTER
                    self.history.append(Window(at=begin, until=end, rule=rule, reason=reason))

    @property
    def _over(self) -> bool:
        now = time.monotonic()
        return now > self._at_most or (now > self._until and not self.unreached)

    async def _slot(self, slot: int) -> None:
        number = 0
        while not self._over:
            number += 1
            # A call that nobody answers is the checker's to judge; the slot goes on with the next one.
            with suppress(Missed):
                async with calling(f"chaos-{slot}-{number}", self.rig, self.history) as call:
                    self._calls[call.name], self._rooms[call.sid] = call, call.name
                    try:
                        await self._talk(call)
                    finally:
                        del self._calls[call.name]
                        self.dispatches += call.dispatches

    async def _talk(self, call: ChaosCall) -> None:
        """Some faults, each followed by a turn that must be answered."""
        for _ in range(self.steps_per_call):
            if self._over:
                return
            try:
                await call.complete(patience=self.replaced_within)
            except Missed as missed:
                self.missed.append(str(missed))
                return
            async with self._striking:
                if (cell := self._next()) is not None:
                    await self.strike(call, cell)
            try:
                await call.complete(patience=self.replaced_within)
            except Missed as missed:
                self.missed.append(str(missed))
                return
            with suppress(Missed):
                await call.until(lambda: call.quiet, within=8.0, what="quiet")
            await call.answered(await call.say())

    def _next(self) -> Cell | None:
        """What was planned and has not come about comes first, then what was never tried."""
        open_ = {cell for cell in self.schedule.coverage.empty if cell in self.planned}
        return self.schedule.next(possible=lambda cell: not open_ or cell in open_)

    def jobs_of(self, worker: ChaosWorker) -> tuple[Job, ...]:
        """The agents of the calls in progress that a worker has."""
        jobs = [job for name in self._calls for job in self.rig.jobs(name)]
        return tuple(job for job in jobs if self.rig.worker_of(job) is worker)

    @property
    def unreached(self) -> list[Cell]:
        """What was planned and did not come about."""
        return [cell for cell in self.schedule.coverage.empty if cell in self.planned]

    async def strike(self, call: ChaosCall, cell: Cell) -> Phase | None:
        """Inflicts the cell's fault, in its phase if that comes about; returns the phase in which it did happen."""
        if (prepare := PREPARATIONS.get(cell.fault)) is not None:
            await prepare(self.rig)
        async with call.in_phase(cell.phase):
            try:
                target = self.faults[cell.fault](self, call)
                if target is None:
                    return None
                await call.recorder.catch_up()
                observed = call.observer.phase
                strike = await inflict(target.fault)
            except FaultImpossible as impossible:
                self.missed.append(str(impossible))
                return None
            self._note(call, cell, target, strike, observed)
        return observed

    def _note(self, call: ChaosCall, cell: Cell, target: Target, strike: Strike, observed: Phase) -> None:
        at, until = strike.at.monotonic, (strike.until or strike.at).monotonic
        for each in self._calls.values():
            if target.everywhere or each is call:
                phase = observed if each is call else each.observer.phase
                self.schedule.coverage.hit(cell.fault, phase)
        name = "" if target.everywhere or target.spreads else call.name
        self.history.append(
            FaultStruck(
                at=at,
                until=until,
                kind=strike.kind,
                target=strike.target,
                phase=observed,
                call=name,
                agents=tuple(job.agent for job in target.hits),
            )
        )
        if target.loses_words:
            reason = f"{cell.fault}: words in flight, and words that nobody hears"
            begin, end = at - WORDS_IN_FLIGHT, until + WORDS_UNHEARD
            self.history.append(Window(at=begin, until=end, rule=Rule.ANSWERED, reason=reason, call=name))
        if target.everywhere:
            self.history.append(Window(at=at, until=until + 2.0, rule=Rule.A_HOLDER, reason=cell.fault, call=name))
