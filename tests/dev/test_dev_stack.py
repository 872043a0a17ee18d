"""The stack as a whole: workers that are registered and can be called, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from livekit import api

from coordination.dev import ComponentFailed, DevError, DevStack, ExternalLiveKit, WorkerSpec
from coordination.dev.errors import NoSuchAgent
from coordination.dev.process import eventually
from tests.dev.conftest import ECHO_AGENT, is_alive, session_of

SOON = timedelta(seconds=20)
BROKEN = 'raise RuntimeError("this agent is broken")'

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevStack]:
    """Two workers that the tests of this module share."""
    folder = tmp_path_factory.mktemp("stack")
    agents: list[WorkerSpec] = []
    for role in ("billing", "technical"):
        file = folder / f"{role}.py"
        file.write_text(ECHO_AGENT.format(role=role))
        agents.append(WorkerSpec(target=str(file), idle_processes=0))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LIVEKIT_", "BATON_"))}
    async with DevStack(agents, directory=folder / "logs", environment=environment) as stack:
        yield stack


async def test_each_worker_is_registered_under_its_role_and_has_a_port_of_its_own(stack: DevStack) -> None:
    assert [worker.role for worker in stack.workers] == ["billing", "technical"]
    assert all(worker.worker_id.startswith("AW_") for worker in stack.workers)
    assert len({worker.health_port for worker in stack.workers}) == 2
    assert stack.worker("billing") is stack.workers[0]
    with pytest.raises(DevError, match="it has: billing, technical"):
        stack.worker("sales")


async def test_an_agent_that_is_dispatched_joins_and_knows_the_stacks_redis(stack: DevStack) -> None:
    server = stack.livekit
    async with api.LiveKitAPI(server.url, server.api_key, server.api_secret) as client:
        await client.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name="technical", room="r"))
        async with asyncio.timeout(SOON.total_seconds()):
            while True:
                there = await client.room.list_participants(api.ListParticipantsRequest(room="r"))
                if any(each.attributes.get("redis") == stack.redis_url for each in there.participants):
                    break
                await asyncio.sleep(0.1)
        await client.room.delete_room(api.DeleteRoomRequest(room="r"))


async def test_a_worker_that_ends_by_itself_is_reported_and_can_be_started_again(stack: DevStack) -> None:
    worker = stack.worker("billing")
    watching = asyncio.create_task(stack.run())
    worker.kill()

    with pytest.raises(ComponentFailed, match=r"Worker billing .* ended by itself with status -9"):
        await asyncio.wait_for(watching, SOON.total_seconds())

    worker.spawn()
    await worker.register()
    assert worker.running


async def test_a_broken_agent_takes_down_what_was_started_and_is_quoted(
    stack: DevStack, write_agent: Callable[..., str], tmp_path: Path
) -> None:
    half = DevStack(
        [WorkerSpec(target=write_agent("whole"), idle_processes=0), write_agent("broken", BROKEN)],
        redis_url=stack.redis_url,
        livekit=stack.livekit,
        directory=tmp_path / "logs",
    )

    with pytest.raises(ComponentFailed, match="this agent is broken") as failed:
        await half.start()

    assert "broken_agent.py" in str(failed.value)
    assert not any(worker.running for worker in half.workers)
    leaders = [worker.pid for worker in half.workers if worker.pid is not None]
    assert len(leaders) == 2
    assert await eventually(lambda: not any(map(session_of, leaders)), SOON)


async def test_servers_that_are_given_are_left_running(stack: DevStack, tmp_path: Path) -> None:
    guest = DevStack([], redis_url=stack.redis_url, livekit=stack.livekit, directory=tmp_path)
    async with guest:
        assert guest.valkey is None
        assert guest.livekit_server is None

    assert stack.valkey is not None
    assert stack.valkey.running
    assert stack.livekit_server is not None
    assert stack.livekit_server.running


async def test_a_target_that_is_no_agent_is_named_before_anything_is_started() -> None:
    stack = DevStack(["no/such/agent.py"], environment={})

    with pytest.raises(NoSuchAgent, match=r"no/such/agent\.py does not exist"):
        await stack.start()

    assert stack.valkey is None


async def test_stopping_ends_every_process_of_every_worker(stack: DevStack, write_agent: Callable[..., str]) -> None:
    lines: list[tuple[str, str]] = []
    guest = DevStack(
        [write_agent("guest")],
        redis_url=stack.redis_url,
        livekit=stack.livekit,
        on_line=lambda name, line: lines.append((name, line)),
    )
    await guest.start()
    leader = guest.workers[0].pid
    assert leader is not None
    assert len(session_of(leader)) > 1  # the main process, LiveKit's fork server, an idle job process

    await guest.stop()

    assert await eventually(lambda: not session_of(leader), SOON), f"left behind: {session_of(leader)}"
    assert any(name == "guest_agent" and "registered worker" in line for name, line in lines)


async def test_a_stack_whose_process_is_killed_leaves_nothing_behind(
    stack: DevStack, write_agent: Callable[..., str]
) -> None:
    script = f"""
import asyncio
from coordination.dev import DevStack

async def main():
    stack = await DevStack([{write_agent("orphan")!r}], redis_url={stack.redis_url!r}).start()
    print(stack.workers[0].pid, stack.livekit_server.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    worker, server = map(int, (await parent.stdout.readline()).split())

    parent.kill()
    await parent.wait()

    gone = await eventually(lambda: not session_of(worker) and not is_alive(server), SOON)
    assert gone, f"left behind: {session_of(worker)}"


async def test_the_servers_of_the_environment_are_used(stack: DevStack) -> None:
    environment = {**stack.livekit.environment, "BATON_REDIS_URL": stack.redis_url}

    guest = DevStack([], environment=environment)

    assert guest.livekit == ExternalLiveKit(
        url=stack.livekit.url, api_key=stack.livekit.api_key, api_secret=stack.livekit.api_secret
    )
    assert guest.redis_url == stack.redis_url
