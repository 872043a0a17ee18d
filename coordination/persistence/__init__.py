"""What outlives a call: the client of the backend, and the outbox that loses nothing while the backend is away.

    async with BackendClient.open() as backend:                         # BATON_BACKEND_URL, BATON_BACKEND_TOKEN
        context = await backend.get_user_context("ann")
        await backend.save_conversation_turn("call-7", ConversationTurn(messages=[...]))    # durable when it returns

Neither redis nor livekit is imported here; an outbox in Redis is opened only where a URL says so.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordination.persistence.client import BackendClient
    from coordination.persistence.errors import (
        BackendAnswerUnreadable,
        BackendError,
        BackendNotConfigured,
        BackendRefused,
        BackendUnauthorized,
        BackendUnavailable,
        OutboxError,
        OutboxFormat,
        OutboxUnavailable,
        PersistenceError,
    )
    from coordination.persistence.settings import PersistenceSettings
    from coordination.persistence.values import (
        ConversationTurn,
        Invoice,
        InvoiceItem,
        Message,
        RecentMessages,
        SessionSummary,
        Speaker,
        Ticket,
        User,
        UserContext,
        Utterance,
    )

_HOMES = {
    "BackendClient": "client",
    "PersistenceSettings": "settings",
    **dict.fromkeys(
        (
            "BackendAnswerUnreadable",
            "BackendError",
            "BackendNotConfigured",
            "BackendRefused",
            "BackendUnauthorized",
            "BackendUnavailable",
            "OutboxError",
            "OutboxFormat",
            "OutboxUnavailable",
            "PersistenceError",
        ),
        "errors",
    ),
    **dict.fromkeys(
        (
            "ConversationTurn",
            "Invoice",
            "InvoiceItem",
            "Message",
            "RecentMessages",
            "SessionSummary",
            "Speaker",
            "Ticket",
            "User",
            "UserContext",
            "Utterance",
        ),
        "values",
    ),
}

__all__ = [
    "BackendAnswerUnreadable",
    "BackendClient",
    "BackendError",
    "BackendNotConfigured",
    "BackendRefused",
    "BackendUnauthorized",
    "BackendUnavailable",
    "ConversationTurn",
    "Invoice",
    "InvoiceItem",
    "Message",
    "OutboxError",
    "OutboxFormat",
    "OutboxUnavailable",
    "PersistenceError",
    "PersistenceSettings",
    "RecentMessages",
    "SessionSummary",
    "Speaker",
    "Ticket",
    "User",
    "UserContext",
    "Utterance",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
