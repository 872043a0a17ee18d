"""The tables; importing this package knows them all."""

from backend.models.base import Base
from backend.models.conversation import Conversation, Message, Turn
from backend.models.event import Counter, Event
from backend.models.file import File
from backend.models.idempotency import IdempotencyKey
from backend.models.invoice import Invoice
from backend.models.room import Room
from backend.models.session import Session
from backend.models.ticket import Ticket
from backend.models.token import Token
from backend.models.user import Erasure, User
from backend.models.webhook import FailedDelivery, Webhook

__all__ = [
    "Base",
    "Conversation",
    "Counter",
    "Erasure",
    "Event",
    "FailedDelivery",
    "File",
    "IdempotencyKey",
    "Invoice",
    "Message",
    "Room",
    "Session",
    "Ticket",
    "Token",
    "Turn",
    "User",
    "Webhook",
]
