"""`async with` for a lease: the body runs only while it is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from coordination.errors import LeaseLost
from coordination.leases.lease import Lease, LossReason


class _Scope:
    """Cancels the task of the body when the lease is lost, once."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.fired = False
        self.active = True

    def __call__(self, lease: Lease) -> None:
        if self.active and lease.reason is not LossReason.RELEASED:
            self.fired = True
            self._task.cancel(f"the lease on {lease.resource} is lost")


@asynccontextmanager
async def holding(acquire: Coroutine[Any, Any, Lease]) -> AsyncGenerator[Lease]:
    """Acquires, runs the body, releases.

    If the lease is lost meanwhile, the body is cancelled at its next await and `LeaseLost` is raised in its place. A
    body that releases the lease itself goes on undisturbed.
    """
    lease = await acquire
    task = asyncio.current_task()
    assert task is not None
    scope = _Scope(task)
    lease.on_lost.append(scope)
    try:
        yield lease
    except asyncio.CancelledError as error:
        # Only the cancellation that the scope itself asked for turns into an error; one from outside stays one.
        if scope.fired and task.uncancel() == 0:
            raise LeaseLost(lease.resource, lease.fence, str(lease.reason)) from error
        raise
    finally:
        scope.active = False
        await lease.release()
    if scope.fired:
        # Lost at the body's very last step: the cancellation has not been delivered yet.
        task.uncancel()
        raise LeaseLost(lease.resource, lease.fence, str(lease.reason))
