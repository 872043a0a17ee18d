"""What can go wrong between a call and what outlives it. `retryable` says whether the outbox tries again by itself."""

from __future__ import annotations

from datetime import timedelta

from coordination.errors import CoordinationError


class PersistenceError(CoordinationError):
    """Base of all errors of the backend client and the outbox."""


class BackendError(PersistenceError):
    """The backend did not do what it was asked. `status` is that of its answer, None without one.

    `kind` is the backend's own word for a refusal (`type` of its problem details), empty without one.
    """

    def __init__(
        self, text: str, *, status: int | None = None, retry_after: timedelta | None = None, kind: str = ""
    ) -> None:
        self.status, self.retry_after, self.kind = status, retry_after, kind
        super().__init__(text)


class BackendUnavailable(BackendError):
    """The backend did not answer in time, cannot be reached, or answered that it cannot serve now."""

    retryable = True


class BackendAnswerUnreadable(BackendError):
    """Something answered, and not as the backend does: a proxy's page, or a release that speaks another format."""

    retryable = True


class BackendUnauthorized(BackendError):
    """The backend refused the token. Saved items wait until the token is right."""

    retryable = True


class BackendRefused(BackendError):
    """The backend answered, and will answer the same to the same request: it was wrong, or asked for what is not."""


class BackendNotConfigured(PersistenceError):
    """No backend is named, and one is needed."""


class OutboxError(PersistenceError):
    """Base of what can go wrong with the outbox itself."""


class OutboxUnavailable(OutboxError):
    """The outbox cannot be opened or written; the item that was to be saved is not durable."""

    retryable = True


class OutboxFormat(OutboxError):
    """The outbox was written by a release whose format this one does not know."""
