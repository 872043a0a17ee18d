"""What the answers of providers say about their quota, in the forms in which they come."""

from __future__ import annotations

from datetime import timedelta

import pytest
from livekit.agents import APIConnectionError, APIError, APIStatusError

from coordination.livekit.limited.feedback import news_of_error, news_of_headers, retry_after


class Answer(Exception):
    """An error of an HTTP client that keeps the answer's headers."""

    def __init__(self, **headers: str) -> None:
        super().__init__("refused")
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, timedelta(seconds=7)),
        ({"Retry-After": "1.5"}, timedelta(seconds=1.5)),
        ({"retry-after": "2", "retry-after-ms": "1250"}, timedelta(milliseconds=1250)),
        (
            {"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"},
            timedelta(seconds=30),
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], wait: timedelta | None) -> None:
    assert retry_after(headers) == wait


def test_a_429_is_read_through_the_errors_around_it() -> None:
    refused = caused(APIStatusError("slow down", status_code=429), Answer(retry_after="3"))
    news = news_of_error(caused(APIConnectionError("gave up after 4 attempts"), refused))

    assert news is not None
    assert news.limited
    assert news.retry_after == timedelta(seconds=3)


def test_a_refusal_in_words_is_one_without_a_status() -> None:
    told = APIError("too_many_concurrent_requests: the account's limit of streams is reached.")
    news = news_of_error(caused(APIStatusError("Could not synthesize"), told))

    assert news is not None
    assert news.limited
    assert news.retry_after is None


@pytest.mark.parametrize("error", [APIStatusError("broken", status_code=503), APIConnectionError(), ValueError("x")])
def test_other_errors_say_nothing_about_the_quota(error: Exception) -> None:
    assert news_of_error(error) is None


def test_what_remains_is_read_with_the_time_until_it_is_whole_again() -> None:
    news = news_of_headers(
        {
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-tokens": "9200",
            "x-ratelimit-reset-tokens": "6m0.5s",
        }
    )

    assert news is not None
    assert not news.limited
    assert news.remaining == {"requests": 59, "tokens": 9200}
    assert news.resets == {"requests": timedelta(seconds=1), "tokens": timedelta(seconds=360.5)}


def test_strange_headers_are_ignored() -> None:
    assert news_of_headers({"x-ratelimit-remaining-tokens": "many"}) is None
    assert news_of_headers({"content-type": "text/plain"}) is None
