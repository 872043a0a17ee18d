"""`CoordinatedServer` is an AgentServer; what it adds is checked here without a call."""

from __future__ import annotations

import asyncio
import os
import pickle

import pytest
from livekit.agents import AgentServer, JobContext

from coordination.errors import InvalidArgument
from coordination.livekit import CoordinatedServer
from coordination.livekit.server import COORDINATION, CoordinatedEntrypoint, count_jobs
from coordination.livekit.spares import BEGINS_WITHIN
from tests.rooms.rig import LiveKitServer


async def importable(ctx: JobContext) -> None:
    """An entrypoint as it should be: at the top level of its module."""


def worker(livekit: LiveKitServer, monkeypatch: pytest.MonkeyPatch, *, num_idle_processes: int) -> CoordinatedServer:
    """A worker of a livekit-server, to be run in the test's own process."""
    for name, value in livekit.environment.items():
        monkeypatch.setenv(name, value)
    server = CoordinatedServer(num_idle_processes=num_idle_processes, port=0, host="127.0.0.1")
    server.rtc_session(importable, agent_name="billing")
    return server


def test_an_entrypoint_survives_the_way_into_a_job_process() -> None:
    server = CoordinatedServer()

    returned = server.rtc_session(agent_name="billing")(importable)
    entrypoint = pickle.loads(pickle.dumps(server._entrypoint_fnc))

    assert returned is importable, "the module keeps the user's function under its name"
    assert isinstance(entrypoint, CoordinatedEntrypoint)
    assert entrypoint.entrypoint is importable
    assert isinstance(server, AgentServer)


async def test_an_entrypoint_that_no_process_can_import_is_named_before_the_first_call() -> None:
    server = CoordinatedServer()

    @server.rtc_session(agent_name="billing")
    async def inner(ctx: JobContext) -> None: ...

    with pytest.raises(InvalidArgument, match=r"inner.*top level"):
        await server.run(devmode=True, unregistered=True)


def test_load_is_counted_in_calls_and_not_in_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    server = CoordinatedServer(max_jobs=4)
    jobs: list[int] = []
    monkeypatch.setattr(CoordinatedServer, "active_jobs", property(lambda _: jobs))

    loads = []
    for _ in range(5):
        loads.append(count_jobs(server))
        jobs.append(1)

    assert loads == [0, 0.25, 0.5, 0.75, 1.0]


def test_a_worker_without_room_for_a_call_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="max_jobs=0"):
        CoordinatedServer(max_jobs=0)


async def test_a_used_process_is_replaced_after_its_job_has_begun(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it begins, its caller waits, and the next process would take the CPU time that it needs."""
    monkeypatch.setenv(COORDINATION, "off")
    server = worker(livekit_server, monkeypatch, num_idle_processes=1)
    registered = asyncio.Event()
    server.on("worker_registered", lambda *_: registered.set())
    running = asyncio.create_task(server.run(devmode=True))
    await asyncio.wait_for(registered.wait(), 30)
    pool = server._proc_pool
    created: list[float] = []
    pool.on("process_created", lambda *_: created.append(asyncio.get_running_loop().time()))

    await server.simulate_job("nowhere", fake_job=True)
    began = asyncio.get_running_loop().time()
    while not created:
        assert asyncio.get_running_loop().time() < began + 10, "the used process is replaced"
        await asyncio.sleep(0.05)
    await server.aclose()
    await asyncio.wait_for(running, 20)

    assert created[0] - began > BEGINS_WITHIN / 2
    assert pool.target_idle_processes == 1


async def test_console_and_connect_run_without_coordination(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both run the worker unregistered; its job processes inherit the environment."""
    monkeypatch.setenv(COORDINATION, "on")
    server = worker(livekit_server, monkeypatch, num_idle_processes=0)
    started = asyncio.Event()
    server.on("worker_started", started.set)

    running = asyncio.create_task(server.run(devmode=True, unregistered=True))
    await asyncio.wait_for(started.wait(), 20)
    inherited = os.environ[COORDINATION], os.environ["BATON_WORKER_ID"]
    await server.aclose()
    await asyncio.wait_for(running, 10)

    assert inherited == ("off", server.worker_id)
