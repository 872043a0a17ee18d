"""A call that several agents share, from its turn log into the reference backend: complete, in order, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from coordination.coordinator import Coordinator, Room
from coordination.dev.backend import BackendServer
from coordination.dev.valkey import EmbeddedValkey
from coordination.ids import AgentId, RoleName, Tenant, WorkerId
from coordination.leases.lease import Lease
from coordination.livekit.saving import leftovers
from coordination.livekit.saving.leftovers import LOST, Round
from coordination.persistence import BackendClient, ConversationTurn, PersistenceSettings, Utterance, host
from coordination.persistence import Speaker as Said
from coordination.persistence.erasures import Erasures, nothing_else
from coordination.persistence.outbox.box import Claim, Failure, Outbox
from coordination.persistence.outbox.file import FileOutbox
from coordination.persistence.outbox.item import ItemKind, OutboxItem
from coordination.persistence.saver import CallSaver
from coordination.persistence.summary import CALLER
from coordination.persistence.values import SavedCall
from coordination.room.turns import Speaker, Turn
from coordination.store import Store
from tests.persistence.tenants import token_for

POISON = Failure(reason="it is wrong", poison=True)


@pytest.fixture(scope="module")
def backend() -> Iterator[BackendServer]:
    with BackendServer() as server:
        yield server


@dataclass(slots=True)
class Scene:
    """One call of its own, and what the backend has of it."""

    backend: BackendServer
    coordinator: Coordinator
    client: BackendClient
    room: Room
    call: SavedCall
    http: httpx.AsyncClient
    ending: AsyncExitStack
    pens: list[CallSaver] = field(default_factory=list[CallSaver])

    def pen(self) -> CallSaver:
        """An agent's, as of a process of its own."""
        self.pens.append(CallSaver(self.room.turns, self.client, self.call))
        return self.pens[-1]

    async def log(self, lease: Lease, role: str, text: str, *, by: Speaker = Speaker.CALLER) -> Turn:
        return await self.room.turns.append(fence=lease.fence, speaker=by, agent=role, role=role, text=text)

    async def rows(self) -> list[dict[str, Any]]:
        """What is saved once everything has been delivered."""
        assert self.client.outbox is not None
        async with asyncio.timeout(20):
            while (await self.client.outbox.statistics()).waiting:
                await asyncio.sleep(0.02)
        assert (await self.client.outbox.statistics()).set_aside == 0
        answer = await self.http.get(f"/v1/conversations/{self.call.conversation}/messages", params={"limit": 200})
        return answer.json()["items"] if answer.status_code == 200 else []

    async def undelivered(self) -> BackendClient:
        """From here on nothing is delivered; the client that is returned only reads."""
        await self.client.close()
        reader = BackendClient(self.client.settings)
        self.ending.push_async_callback(reader.close)
        return reader

    async def texts(self) -> list[tuple[str, str]]:
        return [(row["agent"], row["text"]) for row in await self.rows()]

    async def record(self) -> dict[str, Any]:
        await self.rows()
        answer = await self.http.get(f"/v1/sessions/{self.call.session}")
        return answer.json() if answer.status_code == 200 else {}


@pytest.fixture
async def scene(
    backend: BackendServer, valkey: EmbeddedValkey, store: Store, request: pytest.FixtureRequest
) -> AsyncIterator[Scene]:
    name = f"RM_{abs(hash(request.node.name)):x}"
    settings = PersistenceSettings(backend_url=backend.url, backend_token=SecretStr(backend.token))
    headers = {"Authorization": f"Bearer {backend.token}"}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=backend.url, headers=headers))
        coordinator = await stack.enter_async_context(Coordinator.open(valkey.url))
        client = BackendClient(settings, outbox=coordinator.outbox()).start()
        stack.push_async_callback(client.close)
        room = coordinator.room(name)
        call = SavedCall.model_validate({"session": name, "room": "line 1", "conversation": name, "user": "ann"})
        scene = Scene(backend, coordinator, client, room, call, http, stack)
        yield scene
        for pen in scene.pens:
            await pen.close()


async def test_each_turn_is_saved_once_with_its_agent_and_what_was_heard_of_it(scene: Scene) -> None:
    reception, billing = scene.pen(), scene.pen()
    first = await scene.room.floor.request("reception", role="reception")
    greeting = await scene.log(first, "reception", "hello", by=Speaker.AGENT)
    reception.logged(greeting)
    reception.ended(greeting.id, 1.5, interrupted=True)
    reception.logged(await scene.log(first, "reception", "my bill"))
    await first.release()
    second = await scene.room.floor.request("billing", role="billing")
    billing.logged(await scene.log(second, "billing", "yes please"))
    reception.logged(await scene.log(first, "reception", "a late word"))

    for pen in (reception, billing):
        await pen.close()

    rows = await scene.rows()
    assert [(row["agent"], row["speaker"], row["text"]) for row in rows] == [
        ("reception", "agent", "hello"),
        ("reception", "caller", "my bill"),
        ("reception", "caller", "a late word"),
        ("billing", "caller", "yes please"),
    ]
    assert (rows[0]["played_seconds"], rows[0]["interrupted"]) == (1.5, True)
    assert await scene.room.turns.unsaved() == ()


async def test_what_is_being_said_holds_back_what_was_said_behind_it(scene: Scene) -> None:
    pen = scene.pen()
    lease = await scene.room.floor.request("reception", role="reception")
    long = await scene.log(lease, "reception", "a long answer", by=Speaker.AGENT)
    pen.logged(long)
    pen.logged(await scene.log(lease, "reception", "a word in between"))

    assert await scene.texts() == []
    pen.ended(long.id, 4.0, interrupted=False)
    await pen.close()

    assert [text for _, text in await scene.texts()] == ["a long answer", "a word in between"]


async def test_the_next_agent_saves_what_a_lost_one_left_and_nothing_twice(scene: Scene) -> None:
    dead, heir = scene.pen(), scene.pen()
    lease = await scene.room.floor.request("reception", role="reception")
    saved = await scene.log(lease, "reception", "hello", by=Speaker.AGENT)
    dead.logged(saved)
    dead.ended(saved.id, 2.0, interrupted=False)
    cut = await scene.log(lease, "reception", "I was just saying", by=Speaker.AGENT)
    await scene.room.turns.mark_played(cut.id, 0.5, ended=False)
    dead.logged(cut)
    await scene.log(lease, "reception", "logged, and not a moment later killed")
    assert [text for _, text in await scene.texts()] == ["hello"]

    await heir.rest()
    await heir.rest()
    await heir.close()
    await dead.close()  # it was only stopped, and wakes up: what it knows is another body under the same key

    rows = await scene.rows()
    assert [row["text"] for row in rows] == ["hello", "I was just saying", "logged, and not a moment later killed"]
    assert (rows[1]["played_seconds"], rows[1]["interrupted"]) == (0.5, True)


async def test_the_record_says_who_had_the_floor_and_how_often_it_was_handed_on(scene: Scene) -> None:
    await scene.room.events.publish(CALLER, reason="1f")
    await scene.room.events.publish(CALLER, reason="1f")
    pen = scene.pen()
    for role in ("reception", "billing"):
        lease = await scene.room.floor.request(role, role=role)
        await scene.log(lease, role, f"asked {role}")
        if role == "reception":
            await lease.release()

    await pen.finish(scene.room.events, reason="the call is over")

    await scene.pen().tell(await scene.room.events.read())  # as another agent does, which does not know what was told
    record = await scene.record()
    feed = (await scene.http.get("/v1/events", params={"room": "line 1", "limit": 200})).json()["items"]
    told = [event["kind"] for event in feed if event["conversation_id"] == scene.call.conversation]
    assert told == ["call.started", "call.ended"]
    assert (record["roles"], record["messages"], record["participants"]) == (["reception", "billing"], 2, 1)
    assert (record["user_id"], record["reason"]) == ("ann", "the call is over")
    assert record["ended_at"] >= record["started_at"]


async def test_a_worker_ends_the_record_of_a_call_whose_agents_were_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await scene.room.floor.request("reception", role="reception")
    await scene.coordinator.open_calls().enter(scene.call)
    await scene.log(lease, "reception", "is anybody there")
    membership = await scene.room.roster.join(
        agent=AgentId("reception"), role=RoleName("reception"), worker=WorkerId("w1")
    )

    async with AsyncExitStack() as parts:
        rounds = Round(scene.coordinator, scene.client.settings, parts)
        monkeypatch.setattr(leftovers, "LEFT_AFTER", leftovers.LEFT_AFTER * 0)
        await rounds.go({scene.room.tenant})
        assert await scene.record() == {}, "an agent of the call lives"

        await membership.leave()
        await rounds.go({scene.room.tenant})

        assert (await scene.record())["reason"] == LOST
        assert [text for _, text in await scene.texts()] == ["is anybody there"]
        assert await scene.coordinator.open_calls().read() == []


async def test_what_the_backend_erased_goes_from_outbox_and_redis_as_well(scene: Scene, outbox: Outbox) -> None:
    """Both forms of an outbox; the call of the user goes on."""
    reader = await scene.undelivered()
    lease = await scene.room.floor.request("reception", role="reception")
    await scene.log(lease, "reception", "my number is four seven")
    await scene.room.context.update({"account": "47"}, lease=lease)
    await scene.coordinator.context("user:ann").update({"mood": "good"})
    await scene.coordinator.open_calls().enter(scene.call)
    theirs = OutboxItem(kind=ItemKind.TURN, conversation=scene.call.conversation, payload={}, user="ann")
    by_name = OutboxItem(kind=ItemKind.TURN, conversation="older", payload={})
    other = OutboxItem(kind=ItemKind.TURN, conversation="bob", payload={}, user="bob")
    for item in (theirs, by_name, other):
        await outbox.append(item)
    for conversation in ("older", "bob"):
        await outbox.settle(await _claimed(outbox, conversation), delivered=0, failure=POISON)
    await scene.http.put("/v1/users/ann", json={})
    await scene.http.delete("/v1/conversations/older")
    await scene.http.delete("/v1/users/ann")

    assert await Erasures(reader, outbox, forget=nothing_else).follow() == 2
    async with AsyncExitStack() as parts:
        await Round(scene.coordinator, scene.client.settings, parts).forget(scene.room.tenant, reader)

    assert (await outbox.statistics()).waiting == 0
    assert [aside.item.user for aside in await outbox.set_aside()] == ["bob"]
    assert await scene.room.turns.read() == ()
    assert (await scene.room.context.read()).data == {}
    assert (await scene.coordinator.context("user:ann").read()).data == {}
    assert lease.held


async def test_a_user_who_is_welcome_again_keeps_what_is_new(scene: Scene, outbox: Outbox) -> None:
    reader = await scene.undelivered()
    await scene.http.put("/v1/users/cleo", json={})
    await scene.http.delete("/v1/users/cleo")
    await scene.http.put("/v1/users/cleo", json={})
    await outbox.append(OutboxItem(kind=ItemKind.TURN, conversation="new", payload={}, user="cleo"))

    theirs = scene.call.model_copy(update={"user": "cleo"})
    lease = await scene.room.floor.request("reception", role="reception")
    await scene.log(lease, "reception", "it is me again")
    await scene.coordinator.context("user:cleo").update({"mood": "good"})
    await scene.coordinator.open_calls().enter(theirs)

    assert await Erasures(reader, outbox, forget=nothing_else).follow() == 0
    async with AsyncExitStack() as parts:
        await Round(scene.coordinator, scene.client.settings, parts).forget(scene.room.tenant, reader)

    assert (await outbox.statistics()).waiting == 1
    assert [turn.text for turn in await scene.room.turns.read()] == ["it is me again"]
    assert (await scene.coordinator.context("user:cleo").read()).data == {"mood": "good"}
    await scene.coordinator.open_calls().leave(theirs.session)
    await outbox.forget("cleo")


async def _claimed(outbox: Outbox, conversation: str) -> Claim:
    while True:
        claim = await outbox.claim()
        assert isinstance(claim, Claim), f"{conversation} is not due"
        if claim.conversation == conversation:
            return claim


@asynccontextmanager
async def left_by_killed_jobs(settings: PersistenceSettings, conversation: str) -> AsyncIterator[dict[str, FileOutbox]]:
    """A turn of each tenant in the host's file, which says whose it is."""
    async with AsyncExitStack() as stack:
        left: dict[str, FileOutbox] = {}
        for tenant in map(Tenant, ("default", "acme")):
            left[tenant] = await FileOutbox(settings.outbox_file, tenant=tenant).open()
            stack.push_async_callback(left[tenant].close)
            turn = ConversationTurn(messages=(Utterance(speaker=Said.CALLER, text=f"left by {tenant}"),))
            client = BackendClient(settings, tenant=tenant, outbox=left[tenant])
            await client.save_conversation_turn(conversation, turn)
        yield left


@asynccontextmanager
async def worker_of(settings: PersistenceSettings, *, only: str | None = None) -> AsyncIterator[None]:
    """A worker without a call."""
    work = asyncio.create_task(host.deliver_file(settings, only=only))
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def emptied(outbox: FileOutbox) -> None:
    async with asyncio.timeout(20):
        while (await outbox.statistics()).waiting:
            await asyncio.sleep(0.05)


async def test_what_killed_jobs_left_in_the_file_goes_to_each_tenant_by_its_own_token(
    scene: Scene, backend: BackendServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has no call, and the file comes to be only while it runs."""
    monkeypatch.setattr(host, "LOOK_EVERY", timedelta(seconds=0.05))
    token = await token_for(backend, "acme")
    changes = {"outbox_file": tmp_path / "left.sqlite3", "backend_tokens": {"acme": SecretStr(token)}}
    settings = scene.client.settings.model_copy(update=changes)
    async with worker_of(settings):
        await asyncio.sleep(0.2)
        async with left_by_killed_jobs(settings, scene.call.conversation) as left:
            for outbox in left.values():
                await emptied(outbox)

    assert [row["text"] for row in await scene.rows()] == ["left by default"]
    theirs = await scene.http.get(
        f"/v1/conversations/{scene.call.conversation}/messages", headers={"Authorization": f"Bearer {token}"}
    )
    assert [row["text"] for row in theirs.json()["items"]] == ["left by acme"]


async def test_a_worker_delivers_what_jobs_left_in_redis_by_each_tenants_own_token(
    scene: Scene, backend: BackendServer
) -> None:
    token = await token_for(backend, "acme")
    settings = scene.client.settings.model_copy(update={"backend_tokens": {"acme": SecretStr(token)}})
    outbox = scene.coordinator.outbox("acme")
    turn = ConversationTurn(messages=(Utterance(speaker=Said.CALLER, text="left by acme"),))
    job = BackendClient(settings, tenant=Tenant("acme"), outbox=outbox)
    await job.save_conversation_turn(scene.call.conversation, turn)

    async with AsyncExitStack() as parts:
        await Round(scene.coordinator, settings, parts).go({Tenant("acme")})
        async with asyncio.timeout(20):
            while (await outbox.statistics()).waiting:
                await asyncio.sleep(0.05)

    theirs = await scene.http.get(
        f"/v1/conversations/{scene.call.conversation}/messages", headers={"Authorization": f"Bearer {token}"}
    )
    assert [row["text"] for row in theirs.json()["items"]] == ["left by acme"]
    assert await scene.rows() == []
    await job.close()


async def test_a_worker_of_one_tenant_leaves_what_others_left_to_those_who_have_their_token(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "LOOK_EVERY", timedelta(seconds=0.05))
    settings = scene.client.settings.model_copy(update={"outbox_file": tmp_path / "left.sqlite3"})
    async with left_by_killed_jobs(settings, scene.call.conversation) as left, worker_of(settings, only="default"):
        await emptied(left["default"])
        await asyncio.sleep(0.3)

        assert (await left["acme"].statistics()).waiting == 1
    assert [row["text"] for row in await scene.rows()] == ["left by default"]
