"""Whether the service lives, whether it can serve, and its figures. No token: they tell nothing about any tenant."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from backend.errors import Unavailable, is_away, responses
from backend.state import Parts
from backend.values import Answer

router = APIRouter(tags=["health"])


class Health(Answer):
    """A service that answers at all."""

    status: str = "ok"


@router.get("/health/live", operation_id="live")
async def live() -> Health:
    """The process answers. It does not ask the database: an outage of that is no reason to restart this."""
    return Health()


@router.get("/health/ready", operation_id="ready", responses={503: responses()[503]})
async def ready(parts: Parts) -> Health:
    """The database answers too."""
    try:
        await parts.database.ping()
    except Exception as error:
        if not is_away(error):
            raise
        raise Unavailable("The database does not answer.") from error
    return Health()


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(parts: Parts) -> Response:
    """Prometheus metrics of this process."""
    return Response(parts.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
