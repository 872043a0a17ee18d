"""What a provider says about its quota, read from its answers: 429 and Retry-After, and what remains.

Plugins turn answers into errors of the framework. Those keep the original as cause or context until they are raised
anew, so they are read when the plugin reports them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, cast

from livekit.agents import APIError, APIStatusError

TOO_MANY = 429
_IN_WORDS = ("rate_limit", "too_many_concurrent_requests", "quota_exceeded", "system_busy")
"""How an error in mid-stream names it, where there is no status."""
_UNITS = ("requests", "tokens")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DEEPEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaNews:
    """What one answer says."""

    limited: bool = False
    """Whether the provider refused because of its quota."""
    retry_after: timedelta | None = None
    remaining: Mapping[str, int] = field(default_factory=dict[str, int])
    """By unit, what may still be used before `resets`."""
    resets: Mapping[str, timedelta] = field(default_factory=dict[str, timedelta])


def news_of_error(error: Exception) -> QuotaNews | None:
    """What an error of a plugin tells about the quota; None if it is about something else."""
    chain = list(_chain(error))
    headers = next(filter(None, map(_headers, chain)), cast(Mapping[str, str], {}))
    statuses = (one.status_code for one in chain if isinstance(one, APIStatusError))
    texts = (one.message for one in chain if isinstance(one, APIError))
    limited = TOO_MANY in statuses or any(word in str(text) for text in texts for word in _IN_WORDS)
    news = news_of_headers(headers)
    if not limited:
        return news
    return QuotaNews(
        limited=True,
        retry_after=retry_after(headers),
        remaining=news.remaining if news else {},
        resets=news.resets if news else {},
    )


def news_of_headers(headers: Mapping[str, str]) -> QuotaNews | None:
    """What the headers of an answer tell, as OpenAI and its many imitators send them; None without any."""
    remaining: dict[str, int] = {}
    resets: dict[str, timedelta] = {}
    for unit in _UNITS:
        left = headers.get(f"x-ratelimit-remaining-{unit}")
        if left is not None and left.isdigit():
            remaining[unit] = int(left)
            reset = _duration(headers.get(f"x-ratelimit-reset-{unit}", ""))
            if reset is not None:
                resets[unit] = reset
    return QuotaNews(remaining=remaining, resets=resets) if remaining else None


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """How long to stay away: in milliseconds where a provider says so, in seconds or as a date by RFC 9110."""
    exact = headers.get("retry-after-ms", "")
    if exact.isdigit():
        return timedelta(milliseconds=int(exact))
    # aiohttp's headers ignore case, httpx's too; a plain mapping in a test may not.
    said = headers.get("retry-after") or headers.get("Retry-After") or ""
    try:
        return timedelta(seconds=float(said))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(said)
    except ValueError:
        return None
    sent = headers.get("date") or headers.get("Date")
    # The difference of two times of the provider: this machine's clock plays no part.
    return max(timedelta(0), when - parsedate_to_datetime(sent)) if sent else None


def _duration(text: str) -> timedelta | None:
    """Such as `6m0s`, `1.5s` or `20ms`."""
    parts = _DURATION.findall(text)
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts)) if parts else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    for _ in range(_DEEPEST):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


def _headers(error: BaseException) -> Mapping[str, str] | None:
    """Of the answer that an HTTP client's error carries, whichever client it was."""
    answer: Any = getattr(error, "response", error)
    headers = getattr(answer, "headers", None)
    return cast(Mapping[str, str], headers) if headers is not None and hasattr(headers, "get") else None
