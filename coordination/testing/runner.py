"""Runs a scenario against a LiveKit server: makes the room, sends the first agent, is the caller, and reports.

    outcome = await run_scenario(Scenario.read(path), url=..., api_key=..., api_secret=..., record=Path("out"))
    outcome.report.ok

Workers for the roles must be running. What the caller did and heard is written to the folder `record`: `call.wav`
(each speaker on a channel), `timeline.png` and `report.json`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import aiohttp
from livekit import api

from coordination.errors import CoordinationError, InvalidArgument
from coordination.ids import RoleName, check_name
from coordination.livekit.dispatch import DispatchMetadata
from coordination.livekit.record import SessionRecord
from coordination.testing.analysis import Findings, analyse
from coordination.testing.caller import SimulatedCaller
from coordination.testing.calls import ExpectedAnswer, HandoffTiming
from coordination.testing.happenings import Happening, Tell, What, tell_nobody
from coordination.testing.reading import Reader
from coordination.testing.report import Report
from coordination.testing.scenario import Expect, Fault, Scenario, Step, seconds
from coordination.testing.timeline import draw_timeline

FaultAction = Callable[[str], Awaitable[None]]
"""Makes a fault happen to the call of the room with that sid; the scenario goes on when it returns."""

CALLER_IDENTITY = "caller"
_LAST_WORDS = timedelta(milliseconds=500)
"""How long the caller listens on after the last step, in case that somebody speaks again."""


class ScenarioAborted(CoordinationError):
    """The call could not be made: the server cannot be reached or refuses."""


class HandoffWatch(Protocol):
    """Something that knows when handoffs of a room were decided and ready: what the sound cannot tell."""

    async def start(self, *, room: str, sid: str) -> None:
        """Called once the room exists and before anybody is in it."""
        ...

    async def committed(self) -> Sequence[HandoffTiming]:
        """The handoffs of the room that were committed, in order. Called once, after the caller has gone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a scenario."""

    report: Report
    findings: Findings


def monotonic(epoch: float) -> float:
    """A moment of the wall clock (seconds since 1970) on this process's `time.monotonic()`."""
    return epoch - time.time() + time.monotonic()


async def run_scenario(
    scenario: Scenario,
    *,
    url: str,
    api_key: str,
    api_secret: str,
    room: str | None = None,
    tell: Tell = tell_nobody,
    watch: HandoffWatch | None = None,
    record: Path | None = None,
    session: SessionRecord | None = None,
    faults: Mapping[str, FaultAction] | None = None,
) -> Outcome:
    """Runs `scenario` in a new room and judges what the caller heard.

    `tell` is called for each thing that happens; `watch` adds Baton's own times of handoffs to the report; `record`
    is a folder, made if need be; `session` is what the room's metadata say of the call besides; `faults` are what the
    scenario's faults do, by name. The room is deleted afterwards, also on cancellation. Raises `ScenarioAborted` if
    the server cannot be reached or refuses the key, `InvalidArgument` if the scenario's greetings cannot be recognised
    or a fault of it is not given, and `CallFailed` if the caller cannot join; whatever goes wrong in the call itself
    is in the report.
    """
    name = check_name(room or f"{scenario.name[:40]}-{secrets.token_hex(4)}", "room")
    run = _Run(scenario, tell, faults or {})
    reader = await asyncio.to_thread(Reader, scenario.greetings)
    async with api.LiveKitAPI(url, api_key, api_secret) as server:
        sid = await _create(server, name, scenario.first, url, session or SessionRecord())
        try:
            if watch is not None:
                await watch.start(room=name, sid=sid)
            caller = SimulatedCaller(
                url,
                token=lambda: _token(api_key, api_secret, name),
                identity=CALLER_IDENTITY,
                voice=scenario.voice.voice(),
                tell=run.hear,
            )
            async with caller:
                await run.play(caller, sid=sid)
            timings = tuple(await watch.committed()) if watch is not None else ()
        finally:
            await _delete(server, name)
    call = await asyncio.to_thread(caller.call, handoffs=timings)
    findings = await asyncio.to_thread(analyse, call, greetings=reader)
    report = Report.of(findings, scenario=scenario.name, faults=tuple(run.faults))
    if record is not None:
        report = await asyncio.to_thread(_write, record, report, findings)
    return Outcome(report=report, findings=findings)


class _Run:
    """The steps of one scenario, gone through by one caller."""

    def __init__(self, scenario: Scenario, tell: Tell, actions: Mapping[str, FaultAction]) -> None:
        self._scenario, self._tell, self._actions = scenario, tell, actions
        if unknown := sorted(scenario.faults - actions.keys()):
            raise InvalidArgument(
                f"The scenario {scenario.name!r} has faults that were not given to its runner: {', '.join(unknown)}. "
                f"Given were: {', '.join(sorted(actions)) or 'none'}"
            )
        self._sid = ""
        self.faults: list[str] = []

    def hear(self, happening: Happening) -> None:
        if happening.what is What.MISSED and happening.text != "no answer":
            # A missing answer is found by listening to the recording as well; the others are not.
            who = f" of {happening.who}" if happening.who else ""
            self.faults.append(f"At {happening.at.total_seconds():.1f} s{who}: {happening.text}")
        self._tell(happening)

    async def play(self, caller: SimulatedCaller, *, sid: str) -> None:
        self._sid = sid
        steps = self._scenario.steps
        await caller.join(expected=answer_to(steps, -1))
        for index, step in enumerate(steps):
            await self._do(caller, step, answer_to(steps, index))
        await asyncio.sleep(_LAST_WORDS.total_seconds())

    async def _do(self, caller: SimulatedCaller, step: Step, expected: ExpectedAnswer | None) -> None:
        if step.say is not None:
            await caller.say(step.say, expected=expected)
        elif step.expect is not None:
            await _wait(caller, step.expect)
        elif step.barge_in is not None:
            barge = step.barge_in
            await caller.wait_for_speech(role=barge.role, lasting=seconds(barge.after), within=seconds(barge.within))
            await caller.say(barge.say, expected=expected, barge_in=True)
        elif step.silence is not None:
            await caller.be_silent(seconds(step.silence), expected=expected)
        elif step.type is not None:
            await caller.type(step.type, expected=expected)
        elif step.hang_up is not None:
            await asyncio.sleep(step.hang_up.after)
            await caller.hang_up()
        elif step.rejoin is not None:
            await asyncio.sleep(step.rejoin.after)
            await caller.join(expected=expected)
        elif step.fault is not None:
            await self._strike(caller, step.fault)

    async def _strike(self, caller: SimulatedCaller, fault: Fault) -> None:
        if fault.role is not None:
            await caller.wait_for_speech(role=fault.role, lasting=seconds(fault.after), within=seconds(fault.within))
        else:
            await asyncio.sleep(fault.after)
        caller.remark(What.FAULT, text=fault.name)
        await self._actions[fault.name](self._sid)


async def _wait(caller: SimulatedCaller, expect: Expect) -> None:
    await caller.wait_for_answer(role=expect.role, within=seconds(expect.within), settle=seconds(expect.settle))


def answer_to(steps: Sequence[Step], index: int) -> ExpectedAnswer | None:
    """What is expected after the step `index`: the last of the expects that follow it, or being interruptible."""
    answer: ExpectedAnswer | None = None
    for step in steps[index + 1 :]:
        if step.expect is not None:
            expect = step.expect
            answer = ExpectedAnswer(role=expect.role, handoff=expect.handoff, parts=expect.parts, voices=expect.voices)
        elif step.fault is not None:
            continue
        elif step.barge_in is not None:
            return answer or ExpectedAnswer(role=step.barge_in.role)
        else:
            return answer
    return answer


async def _create(server: api.LiveKitAPI, name: str, role: str, url: str, session: SessionRecord) -> str:
    """Creates the room with a dispatch of the first role; the session record says who the caller is."""
    dispatch = api.RoomAgentDispatch(agent_name=RoleName(role), metadata=DispatchMetadata().format())
    request = api.CreateRoomRequest(
        name=name,
        empty_timeout=60,
        metadata=replace(session, caller=CALLER_IDENTITY).format(),
        agents=[dispatch],
    )
    try:
        return (await server.room.create_room(request)).sid
    except (aiohttp.ClientError, TimeoutError, api.TwirpError) as error:
        raise ScenarioAborted(
            f"LiveKit at {url} does not create the room {name!r}: {error}. Check that it runs, and its key and secret"
        ) from error


async def _delete(server: api.LiveKitAPI, name: str) -> None:
    try:
        await server.room.delete_room(api.DeleteRoomRequest(room=name))
    except api.TwirpError as error:
        if error.code != api.TwirpErrorCode.NOT_FOUND:
            raise


def _token(api_key: str, api_secret: str, room: str) -> str:
    grants = api.VideoGrants(room_join=True, room=room)
    return api.AccessToken(api_key, api_secret).with_identity(CALLER_IDENTITY).with_grants(grants).to_jwt()


def _write(folder: Path, report: Report, findings: Findings) -> Report:
    """Writes recording, picture and report; returns the report with the names of the files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    findings.call.recording.write_wav(folder / "call.wav")
    draw_timeline(findings, title=report.scenario).save(folder / "timeline.png")
    files = {"recording": "call.wav", "timeline": "timeline.png"}
    report = report.model_copy(update={"files": files})
    report.write(folder / "report.json")
    return report
