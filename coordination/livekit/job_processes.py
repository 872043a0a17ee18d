"""The job processes of a worker, which the framework keeps to itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from livekit.agents import AgentServer


def with_job_processes(server: AgentServer, use: Callable[[Any], None]) -> None:
    """Calls `use` with the pool of a server's job processes when there is one: an emitter of what becomes of them."""
    events: Any = server  # The SDK leaves the callbacks of its emitter untyped.

    def started(*_: object) -> None:
        # The pool has no public name; tests hold each supported release to this one.
        use(server._proc_pool)  # pyright: ignore[reportPrivateUsage]

    events.on("worker_started", started)
