"""Requests to LiveKit's server API: bounded in time, and with one place that knows how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus

import aiohttp
from livekit import api

from coordination.errors import CoordinationError

ANSWER_WITHIN = timedelta(seconds=2)
"""LiveKit answers in milliseconds; after this long the answer would come too late for a call."""


class LiveKitUnavailable(CoordinationError):
    """LiveKit's server API refused a request or did not answer."""

    retryable = True


def is_absent(fault: BaseException | None) -> bool:
    """Whether LiveKit answered that the thing does not exist."""
    return isinstance(fault, api.TwirpError) and fault.status == HTTPStatus.NOT_FOUND


def is_refusal(fault: BaseException | None) -> bool:
    """Whether LiveKit answered, and will answer the same to the same request."""
    return isinstance(fault, api.TwirpError) and fault.status < HTTPStatus.INTERNAL_SERVER_ERROR


@asynccontextmanager
async def asking(
    failure: str, *, error: Callable[[str], CoordinationError], within: timedelta = ANSWER_WITHIN
) -> AsyncGenerator[None]:
    """Bounds the requests in its body; what goes wrong with them is raised as `error`, caused by the fault.

    `failure` begins the text: what LiveKit did not do, and to what.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            yield
    except TimeoutError as fault:
        raise error(
            f"{failure}: there was no answer within {within.total_seconds():g} s. "
            "Check that the server runs and can be reached."
        ) from fault
    except aiohttp.ClientError as fault:
        raise error(
            f"{failure}: it cannot be reached ({fault}). Check LIVEKIT_URL and that the server runs."
        ) from fault
    except api.TwirpError as fault:
        raise error(f"{failure}: {_explain(fault)}") from fault


def _explain(fault: api.TwirpError) -> str:
    if fault.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return (
            f"it refused the key (status {fault.status}). Check LIVEKIT_API_KEY and LIVEKIT_API_SECRET, "
            "or the grants of the token."
        )
    said = fault.message or fault.code
    return f"it answered {said!r} (status {fault.status}). Its own log says more."
