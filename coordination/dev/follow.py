"""Follows the log files of several workers and passes each new line on, with the name of its worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

_LOOK_EVERY = 0.2


class LogFollower:
    """Passes on what is written to the files from `open` on; `close` passes on the rest and ends."""

    def __init__(self, logs: Mapping[str, Path], on_line: Callable[[str, str], None]) -> None:
        self._on_line = on_line
        self._logs = dict(logs)
        self._positions = {name: path.stat().st_size if path.exists() else 0 for name, path in self._logs.items()}
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="follow worker logs")

    async def close(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        self._look(whole_lines=False)

    async def _follow(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(_LOOK_EVERY)

    def _look(self, *, whole_lines: bool = True) -> None:
        for name, path in self._logs.items():
            for line in self._new_lines(name, path, whole_lines):
                self._on_line(name, line)

    def _new_lines(self, name: str, path: Path, whole_lines: bool) -> list[str]:
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._positions[name])
            fresh = file.read()
        if whole_lines:
            fresh = fresh[: fresh.rfind(b"\n") + 1]
        self._positions[name] += len(fresh)
        return fresh.decode("utf-8", "replace").splitlines()
