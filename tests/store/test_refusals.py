"""Servers that refuse, are replicas, are full, or come back with old data."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import InvalidSettings, StoreRefused, StoreUnavailable
from coordination.ids import RoomName, Tenant
from coordination.store import Script, Store
from coordination.store.keys import Catalogue
from coordination.store.store import check_version


async def open_and_close(url: str) -> None:
    async with Coordinator.open(url):
        pass


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "must start with redis://"),
        ("http://localhost", "must start with redis://"),
        ("redis+sentinel://localhost", "name the service"),
        ("redis+sentinel:///main", "names no host"),
        ("redis+sentinel://localhost/main?tls=perhaps", "neither true nor false"),
        ("redis://localhost?colour=red", "colour"),
        ("redis+cluster://localhost/3", "no numbered databases"),
        ("redis://localhost:port", "cannot be read"),
    ],
)
async def test_a_wrong_url_is_named_with_what_it_should_be(url: str, says: str):
    with pytest.raises(InvalidSettings, match=says):
        await open_and_close(url)


async def test_a_server_that_is_not_there_is_said_to_be_away():
    with pytest.raises(StoreUnavailable, match="Check that it runs"):
        await open_and_close("redis://127.0.0.1:1")


async def test_a_wrong_password_is_a_refusal_with_its_remedy():
    async with EmbeddedValkey(arguments=("--requirepass", "secret")) as server:
        with pytest.raises(StoreRefused, match="password"):
            await open_and_close(server.url)
        with pytest.raises(StoreRefused, match="password"):
            await open_and_close(server.url.replace("redis://", "redis://:wrong@"))
        await open_and_close(server.url.replace("redis://", "redis://:secret@"))


async def test_a_server_that_evicts_is_refused():
    async with EmbeddedValkey(arguments=("--maxmemory-policy", "volatile-lru")) as server:
        with pytest.raises(StoreRefused, match="noeviction"):
            await open_and_close(server.url)


def test_a_server_that_is_too_old_is_refused():
    with pytest.raises(StoreRefused, match=r"6\.2\.1.*7\.0"):
        check_version({"redis_version": "6.2.1"}, "here")
    check_version({"redis_version": "7.0.15"}, "here")


async def test_a_replica_is_refused_and_delivers_no_phantom_grant(valkey: EmbeddedValkey, store: Store):
    async with EmbeddedValkey() as copy, Redis.from_url(copy.url) as client:
        await client.execute_command("REPLICAOF", "127.0.0.1", str(valkey.port))

        with pytest.raises(StoreRefused, match="replica"):
            await open_and_close(copy.url)
        assert await phantoms(copy.url) == []


async def test_a_full_server_grants_nothing_and_still_takes_back(valkey: EmbeddedValkey, store: Store):
    async with Coordinator.open(valkey.url) as coordinator:
        lease = await coordinator.acquire_lock("before")
        await store.command("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(StoreRefused, match="out of memory"):
                await coordinator.acquire_lock("full")
            assert await phantoms(valkey.url) == []
            assert await lease.release()
        finally:
            await store.command("CONFIG", "SET", "maxmemory", "0")


async def test_a_primary_without_enough_replicas_grants_nothing(valkey: EmbeddedValkey, store: Store):
    async with Coordinator.open(valkey.url) as coordinator:
        await store.command("CONFIG", "SET", "min-replicas-to-write", "1")
        try:
            with pytest.raises(StoreRefused, match="replicas"):
                await coordinator.acquire_lock("lonely")
            assert await phantoms(valkey.url) == []
        finally:
            await store.command("CONFIG", "SET", "min-replicas-to-write", "0")


async def phantoms(url: str) -> list[object]:
    """What a waiter hears when a grant is tried that the server must refuse."""
    keys = Catalogue().room(RoomName("phantom"), Tenant("default")).floor
    script = Script.load("lease/move")
    async with Redis.from_url(url) as client, client.pubsub() as listener:
        await listener.execute_command("SSUBSCRIBE", f"{keys.channel}p1")
        target = ("rid", "agent", "p1", "role", 2_000_000, "test", "free")
        with pytest.raises(ResponseError):
            await client.eval(script.text, 5, *keys.keys, keys.channel, keys.everyone, "1", *target)
        heard: list[object] = []
        for _ in range(5):
            message = await listener.get_message(timeout=0.02)
            if message is not None and message["type"] == "smessage":
                heard.append(message)
        return heard


async def test_fences_grow_over_a_restore_from_an_old_dump(tmp_path: Path):
    """The dump knows nothing of the last grants, and its clock is an hour behind what was seen."""
    async with EmbeddedValkey(directory=tmp_path) as server:
        async with Coordinator.open(server.url) as coordinator:
            room = coordinator.room("call")
            await (await room.floor.request("a")).release()
            client = Redis.from_url(server.url)
            await client.execute_command("SAVE")
            ahead = 3_600_000_000 + (await room.floor.state()).fence
            await client.hset(Catalogue().room(RoomName("call"), Tenant("default")).floor.lease, "f", str(ahead))
            await client.aclose()
            last = await room.floor.request("b")
            assert last.fence == ahead + 1
            await last.release()
            server.kill()
            await server.start()

            again = await asyncio.wait_for(room.floor.request("c", timeout=timedelta(seconds=8)), 10)

        assert again.fence > last.fence


async def test_a_holder_that_a_backup_brings_back_is_replaced_by_the_one_that_came_after_it(tmp_path: Path):
    async with (
        EmbeddedValkey(directory=tmp_path) as server,
        Coordinator.open(server.url) as here,
        Coordinator.open(server.url) as there,
    ):
        old = await here.room("call").floor.request("old")
        client = Redis.from_url(server.url)
        await client.execute_command("SAVE")
        await client.aclose()
        await old.release()
        new = await there.room("call").floor.request("new")
        server.kill()
        await server.start()
        async with asyncio.timeout(5):
            while (await there.room("call").floor.state()).holder != "new":
                await asyncio.sleep(0.05)

        assert new.held
        assert (await there.room("call").floor.state()).fence >= new.fence
