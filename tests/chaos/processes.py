"""Processes that act against a server and say on their output what they do: a word and two numbers a line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BOUND = 30.0
"""Seconds, against hangs."""

Start = Callable[..., Awaitable[asyncio.subprocess.Process]]
"""`await start("hammer", "2", TTL="0.5")`: arguments of the program, and its environment."""


@asynccontextmanager
async def processes_of(program: str, url: str) -> AsyncGenerator[Start]:
    """Starts processes of a program in this folder; whatever is left of them is killed in the end."""
    started: list[asyncio.subprocess.Process] = []

    async def start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / program),
            url,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def heard(process: asyncio.subprocess.Process, word: str) -> list[str]:
    """The line that begins with the word, once the process has said it."""
    assert process.stdout is not None
    async with asyncio.timeout(BOUND):
        while True:
            line = (await process.stdout.readline()).decode().split()
            assert line, f"the process ended before it said {word!r}"
            if line[0] == word:
                return line


async def said(process: asyncio.subprocess.Process) -> list[list[str]]:
    """All lines that are left, once the process has ended."""
    output, _ = await asyncio.wait_for(process.communicate(), BOUND)
    return [line.split() for line in output.decode().splitlines()]
