"""`BackendClient`: what outlives a call, read from the backend and saved to it.

Reads are bounded and fail with an error of their own: an agent that cannot learn its caller's name goes on without.
Saves return when the item is durable, in the outbox, and reach the backend later, in order and exactly once. Without
an outbox they wait for the backend itself; that is for scripts, not for calls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import quote

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from coordination.errors import InvalidArgument
from coordination.ids import DEFAULT_TENANT, Tenant, new_request_id
from coordination.metrics import METRICS
from coordination.persistence.errors import BackendAnswerUnreadable, BackendRefused
from coordination.persistence.http import Requests
from coordination.persistence.outbox.box import Outbox
from coordination.persistence.outbox.drain import Drain
from coordination.persistence.outbox.item import TURN_KEY, ItemKind, OutboxItem
from coordination.persistence.outbox.opening import open_outbox
from coordination.persistence.settings import PersistenceSettings
from coordination.persistence.values import (
    CallEvent,
    ConversationTurn,
    Erasure,
    RecentMessages,
    SessionSummary,
    Ticket,
    UserContext,
    Utterance,
)

DELIVER_WITHIN: Final = timedelta(seconds=12)
"""For one item that nobody waits for: more than a backend takes that answers after ten seconds, and less than half of
the claim that it belongs to."""

KEY_REUSED: Final = "idempotency-key-reused"
"""The backend's word for a key that it knows from another request."""

ERASURES: Final = ("user.erased", "conversation.erased")
"""Kinds of the backend's events that tell of an erasure."""

ValueT = TypeVar("ValueT", bound=BaseModel)


class BackendClient:
    """One tenant's way to the backend. `async with BackendClient.open() as backend:` or start and close by hand."""

    def __init__(
        self,
        settings: PersistenceSettings | None = None,
        *,
        tenant: Tenant = DEFAULT_TENANT,
        outbox: Outbox | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Nothing is connected yet. `tenant` has the token that is used, and the `outbox`; that is opened and closed
        by whoever made it.

        Raises `BackendNotConfigured` without a URL, `InvalidSettings` for one that is none.
        """
        self.settings = settings or PersistenceSettings()
        self._requests = Requests(
            self.settings.require_backend_url(), self.settings.token_of(tenant), transport=transport
        )
        self.outbox = outbox
        self._drain = Drain(outbox, self.deliver) if outbox is not None else None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: PersistenceSettings | None = None,
        *,
        redis_url: str | None = None,
        prefix: str = "baton",
        tenant: Tenant = DEFAULT_TENANT,
    ) -> AsyncGenerator[Self]:
        """A client with an outbox: in Redis with `redis_url`, else in a file. Drains it, also what others left.

        At the end it delivers what is due for as long as the settings allow. Raises as the constructor, and
        `OutboxUnavailable`.
        """
        chosen = settings or PersistenceSettings()
        chosen.require_backend_url()
        outbox = await open_outbox(chosen, redis_url=redis_url, prefix=prefix, tenant=tenant)
        try:
            client = cls(chosen, tenant=tenant, outbox=outbox).start()
            try:
                yield client
            finally:
                await client.close()
        finally:
            await outbox.close()

    def start(self) -> Self:
        """Begins to drain the outbox, in tasks of the running loop."""
        if self._drain is not None:
            self._drain.start()
        return self

    async def close(self, *, within: timedelta | None = None) -> None:
        """Delivers what is due, as long as told (by default: as the settings say), and disconnects."""
        if self._drain is not None:
            await self._drain.close(within=self.settings.outbox_drain if within is None else within)
        await self._requests.close()

    # -- reading ----------------------------------------------------------------------------------

    async def get_user_context(self, user_id: str) -> UserContext | None:
        """The user with preferences, last conversation, open tickets and invoices; None for one that is not known.

        Raises `BackendUnavailable` after `backend_timeout`, and the other children of `BackendError`.
        """
        try:
            answer = await self._get(f"/v1/users/{_segment(user_id)}/context")
        except BackendRefused as refusal:
            if refusal.status in (404, 410):
                return None
            raise
        return _parse(UserContext, answer)

    async def get_recent_messages(
        self, conversation_id: str | None = None, *, room: str | None = None, limit: int = 10
    ) -> RecentMessages:
        """The newest messages of a conversation, or of the newest conversation in the room of that name.

        A conversation that nobody has saved yet has none. Raises as `get_user_context`, and `InvalidArgument` unless
        exactly one of the two is given.
        """
        if (conversation_id is None) == (room is None):
            raise InvalidArgument("Ask for the messages of a conversation or of a room, one of the two.")
        params: dict[str, str | int] = {"limit": limit}
        params |= {"conversation_id": conversation_id} if conversation_id is not None else {"room": str(room)}
        return _parse(RecentMessages, await self._get("/v1/messages/recent", params))

    async def read_erasures(self, cursor: str | None = None, *, limit: int = 200) -> tuple[Sequence[Erasure], str]:
        """What was erased behind `cursor`, or ever, in order, and the cursor to go on with. Raises as
        `get_user_context`.
        """
        params: dict[str, str | int | Sequence[str]] = {"kind": ERASURES, "limit": limit}
        if cursor is not None:
            params["cursor"] = cursor
        feed = _parse(_Feed, await self._get("/v1/events", params))
        return [_parse(Erasure, dict(event.data)) for event in feed.items], feed.cursor

    # -- saving -----------------------------------------------------------------------------------

    async def save_message(
        self,
        conversation_id: str,
        message: Utterance,
        *,
        fence: int | None = None,
        user_id: str | None = None,
        room: str | None = None,
        key: str | None = None,
    ) -> None:
        """Saves one message. Returns when it is durable; `key` makes a repeated call the same as one.

        Raises `OutboxUnavailable` if it is not, or without an outbox the children of `BackendError`.
        """
        extra = {"fence": fence, "user_id": user_id, "room": room}
        await self._save(ItemKind.MESSAGE, conversation_id, _body(message, extra), user_id=user_id, key=key)

    async def save_conversation_turn(
        self,
        conversation_id: str,
        turn: ConversationTurn,
        *,
        user_id: str | None = None,
        room: str | None = None,
        key: str | None = None,
    ) -> None:
        """Saves a turn with its messages. Returns when it is durable. Raises as `save_message`."""
        extra = {"user_id": user_id, "room": room}
        await self._save(ItemKind.TURN, conversation_id, _body(turn, extra), user_id=user_id, key=key)

    async def save_session(self, session: SessionSummary, *, key: str | None = None) -> None:
        """Saves the record of a call, behind the turns of its conversation. Returns when it is durable."""
        order = session.conversation_id or session.id
        await self._save(ItemKind.SESSION, order, _body(session, {}), user_id=session.user_id, key=key)

    async def save_event(self, event: CallEvent, *, user_id: str | None = None) -> None:
        """Tells the backend's feed, once for each id, behind what was saved of the conversation before. Returns when
        it is durable.
        """
        await self._save(ItemKind.EVENT, event.conversation_id, _body(event, {}), user_id=user_id, key=event.id)

    async def _save(
        self, kind: ItemKind, conversation: str, body: dict[str, JsonValue], *, user_id: str | None, key: str | None
    ) -> None:
        item = OutboxItem(kind=kind, conversation=conversation, payload=body, user=user_id, id=key or new_request_id())
        if self.outbox is None or self._drain is None:
            await self.deliver(item, within=self.settings.backend_timeout, attempts=None)
            return
        await self.outbox.append(item)
        METRICS.outbox(str(kind), "saved")
        self._drain.kick()

    async def deliver(self, item: OutboxItem, *, within: timedelta = DELIVER_WITHIN, attempts: int | None = 1) -> None:
        """Sends one item to the backend. Raises the children of `BackendError`.

        An item whose user or conversation was erased meanwhile counts as delivered: it shall not come back. So does
        a turn of a room's log that somebody else has saved already.
        """
        method, path, body = _request(item)
        try:
            await self._answered(method, path, within=within, body=body, key=item.id, attempts=attempts)
        except BackendRefused as refusal:
            if refusal.kind == KEY_REUSED and item.id.startswith(TURN_KEY):
                METRICS.outbox(str(item.kind), "known")
            elif refusal.status == 410:
                METRICS.outbox(str(item.kind), "erased")
            else:
                raise

    # -- what an agent promised -------------------------------------------------------------------

    async def open_ticket(
        self,
        kind: str,
        subject: str,
        *,
        user_id: str | None = None,
        conversation_id: str | None = None,
        details: Mapping[str, JsonValue] | None = None,
        key: str | None = None,
    ) -> Ticket:
        """Opens a ticket at the backend itself, for its number is to be told; `key` makes a repeated call the same as
        one. Raises the children of `BackendError`: after `BackendUnavailable` the ticket may have been opened.
        """
        body: dict[str, JsonValue] = {"kind": kind, "subject": subject, "details": dict(details or {})}
        body |= {name: each for name, each in (("user_id", user_id), ("conversation_id", conversation_id)) if each}
        within = self.settings.backend_timeout
        answer = await self._answered("POST", "/v1/tickets", within=within, body=body, key=key or new_request_id())
        return _parse(Ticket, answer)

    # -- changing a call that runs ------------------------------------------------------------------

    async def update_room_metadata(
        self, room: str, changes: Mapping[str, JsonValue], *, fence: int | None = None
    ) -> Mapping[str, JsonValue]:
        """Lets the backend merge `changes` (RFC 7396) into the metadata of a room; returns them all.

        For code that is not in the room: an agent has `RoomMetadata`. Raises the children of `BackendError`.
        """
        body: dict[str, JsonValue] = {"metadata": dict(changes)}
        if fence is not None:
            body["fence"] = fence
        path = f"/v1/rooms/{_segment(room)}/metadata"
        within = self.settings.backend_timeout
        answer = await self._answered("PATCH", path, within=within, body=body, key=new_request_id())
        return cast("Mapping[str, JsonValue]", answer.get("metadata") or {})

    async def update_participant(
        self,
        room: str,
        identity: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Lets the backend change a participant: metadata are replaced, attributes are merged, "" removes one.

        Raises the children of `BackendError`.
        """
        body: dict[str, JsonValue] = {"attributes": dict(attributes or {})}
        if name is not None:
            body["name"] = name
        if metadata is not None:
            body["metadata"] = dict(metadata)
        path = f"/v1/rooms/{_segment(room)}/participant"
        # The key is not looked at by the backend; setting the same values twice is setting them once.
        await self._requests.ask(
            "PATCH",
            path,
            within=self.settings.backend_timeout,
            params={"identity": identity},
            body=body,
            key=new_request_id(),
        )

    async def _get(self, path: str, params: Mapping[str, str | int | Sequence[str]] | None = None) -> dict[str, Any]:
        return await self._answered("GET", path, within=self.settings.backend_timeout, params=params)

    async def _answered(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """An answer that is an object, as all of the backend's are: anything else did not come from it."""
        answer = await self._requests.ask(method, path, **options)
        if not isinstance(answer, dict):
            raise BackendAnswerUnreadable(
                f"What answered {method} {path} is not the backend: it sent no object. Check BATON_BACKEND_URL.",
                status=200,
            )
        return cast("dict[str, Any]", answer)


class _Event(BaseModel):
    data: dict[str, JsonValue]


class _Feed(BaseModel):
    items: list[_Event]
    cursor: str


def _request(item: OutboxItem) -> tuple[str, str, dict[str, JsonValue]]:
    """Method, path and body under which the backend saves an item."""
    body = dict(item.payload)
    match item.kind:
        case ItemKind.MESSAGE:
            return "POST", f"/v1/conversations/{_segment(item.conversation)}/messages", body
        case ItemKind.TURN:
            return "POST", f"/v1/conversations/{_segment(item.conversation)}/turns", body
        case ItemKind.SESSION:
            return "PUT", f"/v1/sessions/{_segment(str(body.pop('id')))}", body
        case ItemKind.EVENT:
            return "POST", "/v1/events", {"events": [body]}


def _segment(name: str) -> str:
    """A name as one segment of a path."""
    if not name:
        raise InvalidArgument("An empty id names nothing: give the id of a user, conversation, session or room.")
    return quote(name, safe="")


def _body(value: BaseModel, extra: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The fields that are set, as JSON."""
    fields = cast("dict[str, JsonValue]", value.model_dump(mode="json", exclude_none=True))
    return fields | {name: each for name, each in extra.items() if each is not None}


def _parse(model: type[ValueT], answer: dict[str, Any]) -> ValueT:
    try:
        return model.model_validate(answer)
    except ValidationError as faults:
        places = ", ".join(".".join(map(str, fault["loc"])) for fault in faults.errors(include_input=False))
        raise BackendAnswerUnreadable(
            f"The backend's answer is not a {model.__name__} ({places}). Run releases that are at most one apart.",
            status=200,
        ) from faults
