"""Users with the least rights: exactly the lines of docs/how-to/secure-redis.md."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.ports import LOOPBACK
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import GrantNotReplicated, StoreError, StoreRefused
from coordination.handoff.context import HandoffContext
from coordination.ids import AgentId, RoleName, WorkerId
from coordination.room.turns import Speaker
from coordination.settings import CoordinatorSettings
from coordination.store.store import Store
from tests.store.servers import Node
from tests.store.test_tls import LoneSentinel, running

PAGE = Path(__file__).parents[2] / "docs/how-to/secure-redis.md"
LINES = re.findall(r"^```acl\nACL SETUSER (\S+) (.*)\n```$", PAGE.read_text(), re.MULTILINE)
ALL_TENANTS, ONE_TENANT, AT_SENTINELS = (rules.replace("PASSWORD", "secret").split() for _, rules in LINES)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey() as started:
        yield started


async def user(server: EmbeddedValkey, name: str, rules: list[str]) -> str:
    """Makes the user; returns its URL."""
    store = Store(server.url)
    await store.open()
    await store.command("ACL", "SETUSER", name, *rules)
    await store.close()
    return f"redis://{name}:secret@{LOOPBACK}:{server.port}/0"


async def use_a_room(here: Coordinator, there: Coordinator, tenant: str) -> None:
    """Floor with a waiter, roster, context, turns, events and a handoff."""
    room, far = here.room("call", tenant=tenant), there.room("call", tenant=tenant)
    members = [
        await room.roster.join(agent=AgentId("a"), role=RoleName("reception"), worker=WorkerId("w1")),
        await far.roster.join(agent=AgentId("b"), role=RoleName("billing"), worker=WorkerId("w2")),
    ]
    first = await room.floor.request("a", role="reception")
    waiting = asyncio.create_task(far.floor.request("b", timeout=timedelta(seconds=5)))
    while not (await room.floor.state()).queue:
        await asyncio.sleep(0.005)
    await first.release()
    second = await waiting
    await second.release()
    old = await room.floor.request("a", role="reception")
    await room.context.update({"invoice": 42}, lease=old)
    await room.turns.append(fence=old.fence, speaker=Speaker.AGENT, agent="a", role="reception", text="Hello")
    offer = await room.handoffs.offer(old, to_role="billing", context=HandoffContext(), deadline=timedelta(seconds=5))
    await far.handoffs.claim(offer.id, agent="b")
    request = await far.handoffs.ready(offer.id, agent="b")
    await room.handoffs.commit(old, offer.id)
    lease = await far.floor.expect_grant("b", role="billing", request_id=request)
    assert (await far.context.read()).data == {"invoice": 42}
    assert {member.agent for member in await far.roster.members()} == {"a", "b"}
    assert "grant" in [event.kind for event in await far.events.read()]
    await lease.release()
    for member in members:
        await member.leave()


async def test_the_whole_core_runs_with_the_rights_of_the_page(
    server: EmbeddedValkey, caplog: pytest.LogCaptureFixture
):
    url = await user(server, "baton", ALL_TENANTS)
    async with Coordinator.open(url) as here, Coordinator.open(url) as there:
        await use_a_room(here, there, "acme")
        async with here.lock("invoice:42") as lease:
            assert lease.held
        await here.context("user:42").update({"plan": "gold"})
        assert await here._store.subscribers(["baton:1:{x}:p"]) == {"baton:1:{x}:p": 0}
        for forbidden in (("FLUSHALL",), ("KEYS", "*"), ("GET", "baton:x"), ("HGETALL", "other:x")):
            with pytest.raises(StoreRefused, match=r"secure-redis\.md"):
                await here._store.command(*forbidden)
    assert "not" not in " ".join(record.message for record in caplog.records if record.levelno >= logging.WARNING)


async def test_a_server_that_forbids_config_info_and_pubsub_is_warned_of_and_works(
    server: EmbeddedValkey, caplog: pytest.LogCaptureFixture
):
    without = [rule for rule in ALL_TENANTS if rule not in ("+config|get", "+info", "+pubsub|shardnumsub")]
    assert len(without) == len(ALL_TENANTS) - 3
    url = await user(server, "baton", without)
    async with Coordinator.open(url) as here, Coordinator.open(url) as there:
        await use_a_room(here, there, "acme")
        with pytest.raises(StoreRefused, match="no permissions to run the 'pubsub"):
            await here._store.subscribers(["baton:1:{x}:p"])

    warnings = " ".join(record.getMessage() for record in caplog.records)
    assert "does not tell its eviction policy" in warnings
    assert "its version is not checked" in warnings


async def test_replicas_are_asked_with_the_rights_of_the_page(server: EmbeddedValkey):
    """There is none here: what counts is that the question is allowed, and that a refusal of it is told as one."""
    careful = CoordinatorSettings(acknowledge_replicas=1)
    async with Coordinator.open(await user(server, "baton", ALL_TENANTS), settings=careful) as coordinator:
        with pytest.raises(GrantNotReplicated):
            await coordinator.acquire_lock("x")
    without = [rule for rule in ALL_TENANTS if rule != "+wait"]
    async with Coordinator.open(await user(server, "other", without), settings=careful) as coordinator:
        with pytest.raises(StoreRefused, match="wait"):
            await coordinator.acquire_lock("x")


async def test_a_user_of_one_tenant_cannot_touch_the_rooms_of_another(server: EmbeddedValkey):
    url = await user(server, "acme", ONE_TENANT)
    async with (
        Coordinator.open(url) as here,
        Coordinator.open(url) as there,
        Coordinator.open(server.url) as owner,
    ):
        await use_a_room(here, there, "acme")
        theirs = owner.room("call", tenant="globex")
        await theirs.context.update({"secret": 1})
        held = await theirs.floor.request("x")

        intruder = here.room("call", tenant="globex")
        for attempt in (
            intruder.context.read,
            intruder.floor.state,
            lambda: intruder.context.update({"secret": 2}),
            lambda: intruder.floor.request("spy", timeout=timedelta(seconds=1)),
            lambda: intruder.floor.revoke(reason="mischief"),
            intruder.floor.listen,
        ):
            with pytest.raises(StoreRefused):
                await attempt()
        with pytest.raises(StoreError):
            await here._store.subscriber.subscribe("baton:1:{globex/call}:all", lambda _: None)
        with pytest.raises(StoreRefused):
            await here._store.command("SPUBLISH", "baton:1:{globex/call}:all", "forged")
        script = "#!lua\nreturn redis.call('HGETALL', 'baton:1:{globex/call}:context')"
        with pytest.raises(StoreRefused):
            await here._store.command("EVAL", script, 1, "baton:1:{acme/call}:context")

        assert held.held
        assert (await theirs.context.read()).data == {"secret": 1}


async def test_sentinels_are_asked_with_the_rights_of_the_page():
    async with running(LoneSentinel) as servers:
        sentinel: Node = servers.sentinel
        await sentinel.call("ACL", "SETUSER", "baton", *AT_SENTINELS)
        await sentinel.call("ACL", "SETUSER", "default", "off")
        url = f"redis+sentinel://{sentinel!r}/house"
        with pytest.raises(StoreRefused, match="password"):
            await Store(url).open()
        async with Coordinator.open(f"{url}?sentinel_username=baton&sentinel_password=secret") as coordinator:
            await (await coordinator.acquire_lock("x")).release()
