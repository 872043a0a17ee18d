"""Requests to the backend: pooled, bounded, repeated where repeating is safe, and with one place that knows faults.

Safe to repeat is a read, and a write that carries an idempotency key: the backend does it once, however often it is
asked. The bound is that of all attempts together, because somebody waits for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpcore
import httpx
import tenacity
from pydantic import JsonValue

from coordination.errors import InvalidSettings
from coordination.persistence.errors import (
    BackendAnswerUnreadable,
    BackendError,
    BackendRefused,
    BackendUnauthorized,
    BackendUnavailable,
)

KEY_HEADER: Final = "Idempotency-Key"
CONNECT_WITHIN: Final = timedelta(seconds=1)
POOL: Final = httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=30)
_TRANSPORT: Final = httpcore
"""httpx imports it with its first client, which in a call would hold up the voice: so it is here by then."""
_AWAY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed later."""


class Requests:
    """One connection pool to one backend, for one tenant's token."""

    def __init__(self, url: str, token: str | None, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Nothing is connected yet. Raises `InvalidSettings` for what is no http URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidSettings(f"{url!r} is no address of a backend: give http://host:port or https://host.")
        self._label = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers=headers,
            limits=POOL,
            transport=transport,
            # A proxy of the environment's is for the outside world, and would be sent the tenant's token.
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        within: timedelta,
        params: Mapping[str, str | int | Sequence[str]] | None = None,
        body: Mapping[str, JsonValue] | None = None,
        key: str | None = None,
        attempts: int | None = None,
    ) -> Any:
        """The JSON of the answer, None for one without content.

        Reads and writes with a `key` are repeated within the time, others are not; `attempts=1` repeats nothing.
        Raises `BackendUnavailable`, `BackendAnswerUnreadable`, `BackendUnauthorized`, `BackendRefused`.
        """
        repeatable = method == "GET" or key is not None
        until = time.monotonic() + within.total_seconds()
        stop = tenacity.stop_after_attempt(attempts) if attempts else tenacity.stop_after_delay(within.total_seconds())
        retrying = tenacity.AsyncRetrying(
            stop=stop,
            wait=tenacity.wait_exponential(multiplier=0.05, max=0.5) + tenacity.wait_random(0, 0.05),
            retry=tenacity.retry_if_exception(lambda fault: repeatable and _worth_repeating(fault, until)),
            reraise=True,
        )
        last: BackendError | None = None
        async for attempt in retrying:
            with attempt:
                try:
                    return await self._once(method, path, until, params=params, body=body, key=key)
                except BackendError as fault:
                    if fault.status is None and last is not None:
                        raise last from fault  # the time ran out under an attempt; what was answered before says more
                    last = fault
                    raise
        raise AssertionError("tenacity raises or returns")

    async def _once(
        self,
        method: str,
        path: str,
        until: float,
        *,
        params: Mapping[str, str | int | Sequence[str]] | None,
        body: Mapping[str, JsonValue] | None,
        key: str | None,
    ) -> Any:
        left = until - time.monotonic()
        what = f"The backend at {self._label} did not {method} {path}"
        try:
            async with asyncio.timeout(max(0.001, left)):
                answer = await self._client.request(
                    method,
                    path,
                    params=params,
                    json=dict(body) if body is not None else None,
                    headers={KEY_HEADER: key} if key else None,
                    timeout=httpx.Timeout(left, connect=min(left, CONNECT_WITHIN.total_seconds())),
                )
        except (TimeoutError, httpx.TimeoutException) as fault:
            raise BackendUnavailable(
                f"{what}: no answer in time. Check that it runs, or raise BATON_BACKEND_TIMEOUT."
            ) from fault
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            raise BackendUnavailable(
                f"{what}: it cannot be reached ({type(fault).__name__}). Check BATON_BACKEND_URL and that it runs."
            ) from fault
        return _read(answer, what)


def _worth_repeating(fault: BaseException, until: float) -> bool:
    if not isinstance(fault, BackendError) or not fault.retryable or isinstance(fault, BackendUnauthorized):
        return False
    wait = fault.retry_after.total_seconds() if fault.retry_after else 0.0
    return time.monotonic() + wait < until


def _read(answer: httpx.Response, what: str) -> Any:
    status = answer.status_code
    if status in (401, 403):
        raise BackendUnauthorized(
            f"{what}: it refused the token (status {status}). Check BATON_BACKEND_TOKEN.", status=status
        )
    if status in _AWAY or status >= 500:
        raise BackendUnavailable(
            f"{what}: it answered {status}. Its own log says more.", status=status, retry_after=_retry_after(answer)
        )
    if status >= 400:
        raise BackendRefused(f"{what}: it answered {status}: {_reason(answer)}", status=status, kind=_kind(answer))
    if status == 204:
        return None
    try:
        if not answer.is_success:
            raise ValueError(f"status {status}")
        return answer.json()
    except ValueError as fault:
        raise BackendAnswerUnreadable(
            f"{what}: what answered is not the backend (status {status}, {answer.headers.get('content-type')!r}). "
            "Check BATON_BACKEND_URL, and what stands between.",
            status=status,
        ) from fault


def _reason(answer: httpx.Response) -> str:
    """What the backend says about its refusal. It may quote what was sent, so it is bounded."""
    text = answer.text.strip()
    return text[:300] + ("…" if len(text) > 300 else "") if text else "without a reason"


def _kind(answer: httpx.Response) -> str:
    """The word that the backend's problem details (RFC 9457) begin with."""
    try:
        found: object = answer.json()
    except ValueError:
        return ""
    kind = cast("dict[str, object]", found).get("type") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else ""


def _retry_after(answer: httpx.Response) -> timedelta | None:
    """Seconds, or a date (RFC 9110, 10.2.3); None for neither."""
    given = answer.headers.get("retry-after", "")
    try:
        if given.strip().isdigit():
            return timedelta(seconds=int(given))
        return max(timedelta(0), parsedate_to_datetime(given) - datetime.now(UTC))
    except (ValueError, TypeError, OverflowError):
        return None
