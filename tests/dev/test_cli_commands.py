"""The `baton` command as a shell sees it: output, exit status, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from coordination.cli.app import app
from coordination.dev import EmbeddedValkey
from coordination.dev.process import eventually
from coordination.store import Store
from tests.dev.conftest import is_alive, session_of

BATON = [sys.executable, "-c", "from coordination.cli import main; main()"]
IN_TIME = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    output: str
    complaint: str


async def baton(*arguments: str, **environment: str) -> Answer:
    variables = {**os.environ, "COLUMNS": "160", **environment}
    process = await asyncio.create_subprocess_exec(
        *BATON, *arguments, env=variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, complaint = await asyncio.wait_for(process.communicate(), IN_TIME)
    assert process.returncode is not None
    return Answer(process.returncode, output.decode(), complaint.decode())


@pytest.fixture
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey() as valkey:
        yield valkey


async def test_doctor_finds_nothing_wrong_with_a_redis_that_is_fit(valkey: EmbeddedValkey) -> None:
    answer = await baton("doctor", "--json", BATON_REDIS_URL=valkey.url)

    report = json.loads(answer.output)
    found = {each["subject"]: each for each in report["findings"]}
    assert (answer.status, report["ok"]) == (0, True)
    for subject in ("Python", "Redis", "round trip", "eviction", "rights", "connections", "clock", "leftovers"):
        assert found[subject]["verdict"] == "ok", found[subject]
    assert "4983 agents" in found["connections"]["text"]


async def test_doctor_names_what_is_wrong_and_what_to_do(valkey: EmbeddedValkey) -> None:
    store = Store(valkey.url)
    await store.open()
    await store.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    await store.command("CONFIG", "SET", "maxclients", "50")
    await store.command("SET", f"{store.keys.root}stray", "1")
    await store.close()

    answer = await baton("doctor", "--redis-url", valkey.url, "--json")

    found = {each["subject"]: each for each in json.loads(answer.output)["findings"]}
    assert answer.status == 1
    assert found["eviction"]["verdict"] == "fault"
    assert "noeviction" in found["eviction"]["remedy"]
    assert found["connections"]["verdict"] == "warning"
    assert "baton:1:stray" in found["leftovers"]["text"]


async def test_doctor_reports_a_redis_that_refuses_what_baton_needs(valkey: EmbeddedValkey) -> None:
    store = Store(valkey.url)
    await store.open()
    await store.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@read", "+info", "+client", "+ping")
    await store.close()
    url = valkey.url.replace("redis://", "redis://reader:secret@")

    answer = await baton("doctor", "--redis-url", url, "--json")

    found = {each["subject"]: each for each in json.loads(answer.output)["findings"]}
    assert answer.status == 1
    assert found["rights"]["verdict"] == "fault"
    assert "EVAL" in found["rights"]["text"]
    assert "secret" not in answer.output


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "http://example.org"])
async def test_doctor_reports_a_redis_that_is_not_there(url: str) -> None:
    answer = await baton("doctor", "--redis-url", url)

    assert answer.status == 1
    assert "BATON_REDIS_URL" in answer.output
    assert "1 faults" in answer.output


async def test_a_command_without_its_server_says_which_variable_to_set() -> None:
    rooms, floor = await asyncio.gather(baton("rooms"), baton("floor", "show", "call-7"))

    assert (rooms.status, floor.status) == (3, 3)
    assert "LIVEKIT_URL" in rooms.complaint
    assert "BATON_REDIS_URL" in floor.complaint
    assert "Traceback" not in rooms.complaint + floor.complaint


async def test_a_livekit_that_is_down_is_reported_in_one_sentence() -> None:
    answer = await baton("rooms", LIVEKIT_URL="ws://127.0.0.1:1", LIVEKIT_API_KEY="key", LIVEKIT_API_SECRET="s" * 40)

    assert answer.status == 3
    assert "cannot be reached" in answer.complaint
    assert "Traceback" not in answer.complaint


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["dev"], ["dev", "no_such_agent.py"], ["floor", "grant", "room"]]
)
def test_a_wrong_command_line_has_the_status_of_one(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


async def test_dev_runs_an_agent_until_ctrl_c_and_leaves_nothing(
    valkey: EmbeddedValkey, write_agent: Callable[..., str]
) -> None:
    variables = {**os.environ, "COLUMNS": "160", "BATON_REDIS_URL": valkey.url}
    process = await asyncio.create_subprocess_exec(
        *BATON, "dev", write_agent("billing"), "--port", "0", env=variables, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(IN_TIME):
        # What the worker says itself comes by another way, sooner or later.
        while "Ctrl-C stops everything" not in said or "registered worker" not in said:
            line = (await process.stdout.readline()).decode()
            assert line, f"it ended early:\n{said}"
            said += line
    worker = int(re.findall(r"registered \(pid (\d+), role billing\)", said)[0])
    assert is_alive(worker)
    assert "http://localhost:" in said

    process.send_signal(signal.SIGINT)
    rest = (await asyncio.wait_for(process.stdout.read(), IN_TIME)).decode()

    assert await process.wait() == 0
    assert "Stopped." in rest
    assert await eventually(lambda: not session_of(worker), timedelta(seconds=10))
    assert valkey.running
