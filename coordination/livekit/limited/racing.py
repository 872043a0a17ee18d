"""Two halves of a stream, one that sends and one that receives, as one thing that ends or fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from livekit.agents import APIConnectionError

from coordination.limits.reservation import Reservation


async def first_fault(
    receiving: Coroutine[Any, Any, None], sending: Coroutine[Any, Any, None], *, reservation: Reservation | None
) -> None:
    """Returns when the receiving half has ended, whatever was left to send; raises the first fault of either.

    A slot that was lost, because this process did not beat for too long, is a fault: the framework's retry asks for it
    again. Both halves have ended when it returns, or was cancelled.
    """
    receiver = asyncio.create_task(receiving, name="limited stream receives")
    sender = asyncio.create_task(sending, name="limited stream sends")
    tasks = [sender, receiver]
    if reservation is not None:
        tasks.append(asyncio.create_task(_lost(reservation), name="limited stream keeps its slot"))
    receiver.add_done_callback(lambda _: [task.cancel() for task in tasks])
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        ended = [task for task in tasks if task.done() and not task.cancelled()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


async def _lost(reservation: Reservation) -> None:
    await reservation.lost.wait()
    raise APIConnectionError(
        f"The stream at {reservation.provider} lost its slot: its process was stopped for too long."
    )
