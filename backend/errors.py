"""What the API refuses, and how it says so: one base, one class a situation, sent as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

MEDIA_TYPE = "application/problem+json"


class BackendError(Exception):
    """Base of all errors that the backend raises on purpose."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal"


class InvalidSettings(BackendError, ValueError):
    """The configuration has faults; the text lists all of them."""


class Unauthenticated(BackendError):
    """No token, or one that is not known, has expired or was revoked."""

    status = 401
    kind = "unauthenticated"


class NotFound(BackendError):
    """There is no such thing for this tenant; whether another tenant has one is not told."""

    status = 404
    kind = "not-found"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"There is no {what} {name!r}.")


class Conflict(BackendError):
    """The request does not fit what is stored; nothing was written."""

    status = 409
    kind = "conflict"


class KeyReused(Conflict):
    """The Idempotency-Key belongs to another request."""

    kind = "idempotency-key-reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used for another request: nothing was written. Give each request its own key, "
            "and repeat a request unchanged."
        )


class StaleFence(Conflict):
    """The write carries an older fence than one that was seen."""

    kind = "stale-fence"

    def __init__(self, what: str, fence: int, current: int) -> None:
        super().__init__(
            f"The write to {what} carried fence {fence}, but {current} is current: nothing was written. "
            "Another holder owns it now; drop the write."
        )


class Erased(BackendError):
    """The data of this user or conversation was erased, and is not to come back."""

    status = 410
    kind = "erased"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"The {what} {name!r} was erased: nothing was written. Drop what is left of it.")


class TooLarge(BackendError):
    """A body, or what it would be merged into, is beyond its limit."""

    status = 413
    kind = "too-large"


class InvalidRequest(BackendError):
    """A rule that the schema cannot express is broken."""

    status = 422
    kind = "invalid"


class Unavailable(BackendError):
    """The database or LiveKit did not answer; the same request may succeed later."""

    status = 503
    kind = "unavailable"


class Fault(BaseModel):
    """One fault of a request."""

    place: str
    message: str


class Problem(BaseModel):
    """Problem details (RFC 9457). `type` is a short word that a program can act on."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str
    faults: list[Fault] = []


def problem(status: int, kind: str, detail: str, faults: Sequence[Fault] = ()) -> Response:
    """The answer to a request that was refused."""
    titles = {400: "Bad request", 401: "Unauthenticated", 404: "Not found", 405: "Method not allowed", 409: "Conflict"}
    titles |= {410: "Gone", 413: "Too large", 422: "Invalid request", 500: "Internal error", 503: "Unavailable"}
    body = Problem(type=kind, title=titles.get(status, "Refused"), status=status, detail=detail, faults=list(faults))
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse(body.model_dump(), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of an operation, for its description: those that every one shares, and `statuses`."""
    shared = (400, 401, 413, 422, 503)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": "Problem", "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*shared, *statuses})
    }


def handle_errors(app: FastAPI) -> None:
    """Turns every error into problem details. What was not foreseen is logged by the server and tells nothing."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, BackendError)
        return problem(error.status, error.kind, str(error))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [Fault(place=".".join(map(str, it["loc"])), message=str(it["msg"])) for it in error.errors()]
        return problem(422, "invalid", "The request breaks the schema; see the faults.", faults)

    async def by_framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = problem(error.status_code, "refused", str(error.detail))
        if error.status_code == 405:
            answer.headers["Allow"] = ", ".join(sorted(_methods(request)))
        return answer

    async def database_away(_: Request, error: Exception) -> Response:
        return problem(503, "unavailable", "The database did not answer in time. Repeat the request.")

    app.add_exception_handler(BackendError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, by_framework)
    for away in (OperationalError, InterfaceError, PoolTimeout, ConnectionError, TimeoutError):
        app.add_exception_handler(away, database_away)


def _methods(request: Request) -> set[str]:
    """What can be done with the path; the framework alone would name the methods of the first route only."""
    found: set[str] = set()
    for route in request.app.router.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return found


def is_away(error: BaseException) -> bool:
    """Whether a database error means that the database cannot be reached, or is too busy."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, PoolTimeout | OSError)
