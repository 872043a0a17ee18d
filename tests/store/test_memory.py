"""A server that comes back empty, or older: the holder's process puts the story of the call back, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.leases.lease import Lease
from coordination.room import memory as module
from coordination.room.turns import Speaker
from tests.store.servers import eventually
from tests.store.test_away import save

BOUND = 10.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey(directory=tmp_path) as started:
        yield started


async def say(coordinator: Coordinator, lease: Lease, speaker: Speaker, text: str) -> str:
    turns = coordinator.room("call").turns
    return (await turns.append(fence=lease.fence, speaker=speaker, agent=lease.agent, role="r", text=text)).id


async def said(coordinator: Coordinator) -> list[str]:
    return [turn.text for turn in await coordinator.room("call").turns.read()]


async def restart(server: EmbeddedValkey, *, holder: Coordinator) -> None:
    """Returns when the holder is the holder again."""
    server.kill()
    await server.start()

    async def claimed() -> bool:
        return (await holder.room("call").floor.state()).holder is not None

    await eventually(claimed, "the holder claims its floor")


async def test_who_takes_over_after_an_empty_return_knows_the_story(server: EmbeddedValkey):
    """What another agent said before, what was said since, how much was heard of it, and the context."""
    async with Coordinator.open(server.url) as here, Coordinator.open(server.url) as there:
        first = await there.room("call").floor.request("first")
        await say(there, first, Speaker.AGENT, "hello")
        await there.room("call").context.update({"invoice": 42})
        await first.release()
        lease = await here.room("call").floor.request("second")
        assert await said(here) == ["hello"]
        await here.room("call").context.update({"topic": "refund"}, lease=lease)
        await say(here, lease, Speaker.CALLER, "a refund")
        answer = await say(here, lease, Speaker.AGENT, "which invoice")
        await here.room("call").turns.mark_played(answer, 1.5)
        before = await here.room("call").turns.read()
        context = await here.read_context("call")

        await restart(server, holder=here)
        await say(here, lease, Speaker.CALLER, "the last one")

        async def whole() -> bool:
            return await said(there) == ["hello", "a refund", "which invoice", "the last one"]

        await eventually(whole, "the turns are there again", BOUND)
        assert await there.read_context("call") == context
        assert (await there.room("call").turns.read())[:3] == before
        await lease.release()
        heir = await there.room("call").floor.request("heir")
        await here.room("call")._memory.restore()
        assert len(await said(there)) == 4
        await heir.release()


async def test_an_older_state_gets_what_it_lacks_and_newer_data_is_left_alone(server: EmbeddedValkey):
    async with Coordinator.open(server.url) as here, Coordinator.open(server.url) as there:
        lease = await here.room("call").floor.request("a")
        await here.room("call").context.update({"version": "old"})
        await say(here, lease, Speaker.AGENT, "saved")
        await save(server)
        await here.room("call").context.update({"version": "new"})
        await say(here, lease, Speaker.CALLER, "not saved")

        await restart(server, holder=here)

        async def whole() -> bool:
            return await said(there) == ["saved", "not saved"] and (await there.read_context("call")).data == {
                "version": "new"
            }

        await eventually(whole, "what the older state lacked is there again", BOUND)
        await there.room("call").context.update({"version": "newest"})
        memory = here.room("call")._memory
        assert await here._store.run(module.RESTORE, memory._store_keys, memory._copies(lease.fence)) == [1, 0, 0]
        assert (await there.read_context("call")).data == {"version": "newest"}
        await lease.release()


async def test_who_does_not_hold_the_floor_puts_nothing_back(server: EmbeddedValkey):
    async with Coordinator.open(server.url) as here, Coordinator.open(server.url) as there:
        lease = await here.room("call").floor.request("a")
        await say(here, lease, Speaker.AGENT, "hello")
        await lease.release()
        server.kill()
        await server.start()
        new = await there.room("call").floor.request("b")

        keys, copies = here.room("call")._memory._store_keys, here.room("call")._memory._copies(lease.fence)
        reply = await here._store.run(module.RESTORE, keys, copies)

        assert reply == [0]
        assert await said(there) == []
        await new.release()


async def test_the_copies_are_bounded_and_the_newest_are_kept(server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_TURNS", 3)
    async with Coordinator.open(server.url) as here:
        lease = await here.room("call").floor.request("a")
        for number in range(6):
            await say(here, lease, Speaker.AGENT, f"{number}")

        await restart(server, holder=here)

        async def kept() -> bool:
            return await said(here) == ["3", "4", "5"]

        await eventually(kept, "the newest turns are there again", BOUND)
        await lease.release()


async def test_what_was_erased_is_not_put_back_after_an_empty_return(server: EmbeddedValkey):
    """A user's data are erased while their call goes on, and then Redis is lost: the holder's copies must be gone."""
    async with Coordinator.open(server.url) as here, Coordinator.open(server.url) as there:
        lease = await here.room("call").floor.request("a")
        await here.room("call").context.update({"account": "47"}, lease=lease)
        before = await say(here, lease, Speaker.CALLER, "my number is four seven")
        told = here.room("call").turns.follow()
        assert [turn.text for turn in await anext(told)] == ["my number is four seven"]

        await there.room("call").forget()
        assert await anext(told) == ()

        async def forgotten() -> bool:
            return not here.room("call")._memory._turns

        await eventually(forgotten, "the holder forgets")
        await restart(server, holder=here)
        after = await say(here, lease, Speaker.CALLER, "and what is it about")
        await here.room("call")._memory.restore()

        assert await said(there) == ["and what is it about"]
        assert (await there.read_context("call")).data == {}
        assert after > before, "a number is not given out twice: whoever remembers it would take one turn for the other"
        await lease.release()


async def test_what_was_erased_unheard_is_forgotten_with_the_next_turn_or_reconnect(server: EmbeddedValkey):
    """Nothing depends on a message: this holder does not even listen."""
    async with Coordinator.open(server.url) as here, Coordinator.open(server.url) as there:
        lease = await here.room("call").floor.request("a")
        await here.room("call").context.update({"account": "47"}, lease=lease)
        await say(here, lease, Speaker.CALLER, "first")
        await there.room("call").forget()

        await here.room("call")._memory.restore()
        assert await said(there) == []
        await here.room("call").context.update({"topic": "refund"}, lease=lease)
        await say(here, lease, Speaker.CALLER, "second")
        await there.room("call").forget()
        await say(here, lease, Speaker.CALLER, "third")
        await restart(server, holder=here)

        async def whole() -> bool:
            return await said(there) == ["third"]

        await eventually(whole, "what was said since is put back", BOUND)
        assert (await there.read_context("call")).data == {}
        await lease.release()


async def test_who_read_along_tells_the_story_when_redis_and_the_holder_are_lost_together(server: EmbeddedValkey):
    async with Coordinator.open(server.url) as there:
        async with Coordinator.open(server.url) as here:
            lease = await here.room("call").floor.request("a")
            standby = there.room("call")
            reading = [asyncio.create_task(each.read_along()) for each in (standby.turns, standby.context)]
            await here.room("call").context.update({"topic": "refund"}, lease=lease)
            await say(here, lease, Speaker.CALLER, "hello")
            answer = await say(here, lease, Speaker.AGENT, "which invoice")
            await here.room("call").turns.mark_played(answer, 1.5)
            before = await here.room("call").turns.read()

            async def read() -> bool:
                return standby._memory._turns.get(answer, (b"", ""))[1] == "1.500"

            await eventually(read, "the standby has read it, and how much of it was heard")
            server.kill()
        await server.start()

        lease = await standby.floor.request("b")
        await standby.restore()

        assert await standby.turns.read() == before
        assert (await standby.context.read()).data == {"topic": "refund"}
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await lease.release()
