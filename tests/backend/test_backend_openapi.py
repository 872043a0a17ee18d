"""The committed description of the API is what the service offers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backend.__main__ import describe

COMMITTED = Path(__file__).parents[2] / "docs/reference/backend-openapi.json"


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_committed_description_is_current() -> None:
    assert COMMITTED.read_text() == describe(), "run: python -m backend openapi docs/reference/backend-openapi.json"


def test_every_operation_wants_a_token_but_those_that_tell_nothing_of_a_tenant() -> None:
    open_to_all = {
        operation["operationId"]
        for _, _, operation in _operations(json.loads(describe()))
        if operation.get("security") != [{"token": []}]
    }

    assert open_to_all == {"live", "ready", "metrics", "receive_livekit_webhook"}


def test_every_operation_that_adds_something_wants_an_idempotency_key() -> None:
    """Those that do not, can be repeated: a token is only made, and events and webhooks of LiveKit carry ids."""
    without = {
        operation["operationId"]
        for method, _, operation in _operations(json.loads(describe()))
        if method == "post"
        and not any(it["name"] == "Idempotency-Key" and it["required"] for it in operation.get("parameters", []))
    }

    assert without == {"create_join_token", "append_events", "receive_livekit_webhook"}
