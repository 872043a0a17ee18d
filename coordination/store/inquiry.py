"""A few questions to one server on a connection of their own, closed after the answers.

For what must not wait behind, or be lost with, a connection in use: where the primary is, how a node is set up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from coordination.store import faults
from coordination.store.endpoint import Endpoint

ANSWER_WITHIN: Final = 0.5
"""Seconds for connect and answers: a server that takes longer is passed over, others are asked in the same time."""

Question = Sequence[str]


async def ask(endpoint: Endpoint, *questions: Question, within: float = ANSWER_WITHIN) -> list[Any]:
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


async def _ask_one(connection: Any, question: Question) -> Any:
    await connection.send_command(*question)
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal
