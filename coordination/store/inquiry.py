"""A few questions to one server on a connection of their own, closed after the answers.

For what must not wait behind, or be lost with, a connection in use: where the primary is, how a node is set up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError, ResponseError

from coordination.errors import StoreError
from coordination.store import faults
from coordination.store.endpoint import CONNECT_TIMEOUT, Endpoint

QUICK: Final = 0.5
"""Seconds for connect and answers: one server among several that takes longer is passed over."""
SLOW: Final = CONNECT_TIMEOUT
"""Seconds for a server alone, and for all of them if none was quicker."""

Question = Sequence[str]
T = TypeVar("T")


async def ask(endpoint: Endpoint, *questions: Question, within: float = SLOW) -> list[Any]:
    """The reply to each question; a refusal is a `ResponseError` in the list.

    Raises `StoreRefused` or `StoreUnavailable` if there is no connection or no answer in time.
    """
    connection = endpoint.connection()
    try:
        async with asyncio.timeout(within):
            await connection.connect()
            return [await _ask_one(connection, question) for question in questions]
    except (RedisError, OSError, TimeoutError) as error:
        raise faults.on_connect(error, endpoint.label) from error
    finally:
        await connection.disconnect(nowait=True)


async def ask_several(ask_one: Callable[[Endpoint, float], Awaitable[T]], servers: Sequence[Endpoint]) -> list[T]:
    """What each server answers; those that do not are left out. Raises what tells most if none does."""
    failures: list[StoreError] = []
    for within in (QUICK, SLOW):
        answers = await asyncio.gather(*(ask_one(server, within) for server in servers), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, StoreError)]
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, StoreError):
                raise answer
        if found := [answer for answer in answers if not isinstance(answer, BaseException)]:
            return found
    raise next((failure for failure in failures if not failure.retryable), failures[0])


async def _ask_one(connection: Any, question: Question) -> Any:
    await connection.send_command(*question)
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal
