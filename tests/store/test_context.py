"""Shared context against a real server: merging, versions, fences, limits, lifetimes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordination.coordinator import Coordinator
from coordination.errors import ContextConflict, ContextTooLarge, InvalidArgument, StaleFence
from coordination.room.patch import merge_patch
from coordination.store import Store

RFC_7396: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_a_patch_merges_as_the_rfc_says(target: Any, patch: Any, result: Any):
    assert merge_patch(target, patch) == result


@given(JSON, st.dictionaries(st.text(max_size=3), JSON, max_size=3))
def test_a_patch_that_is_applied_twice_changes_nothing_more(target: Any, patch: dict[str, Any]):
    once = merge_patch(target, patch)

    assert merge_patch(once, patch) == once


async def test_every_change_of_many_writers_is_kept(coordinator: Coordinator, other: Coordinator):
    def count(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "n": data.get("n", 0) + 1}

    contexts = [coordinator.room("call").context, other.room("call").context]
    await asyncio.gather(*(contexts[i % 2].transform(count) for i in range(20)))

    assert (await contexts[0].read()).data == {"n": 20}


async def test_of_two_writers_at_one_version_one_is_told_of_both(coordinator: Coordinator, other: Coordinator):
    here, there = coordinator.room("call").context, other.room("call").context
    base = await here.update({"owner": None, "n": 1})
    won = await here.update({"owner": "x"}, version=base.version)

    with pytest.raises(ContextConflict) as conflict:
        await there.update({"owner": "x"}, version=base.version)

    assert (conflict.value.expected, conflict.value.current) == (base.version, won.version)


async def test_versions_grow_when_the_server_comes_back_empty(coordinator: Coordinator, store: Store):
    context = coordinator.room("call").context
    first = await context.update({"n": 1})
    await store.command("FLUSHALL")

    assert (await context.update({"n": 2})).version > first.version


async def test_a_lease_that_was_released_may_not_write(coordinator: Coordinator):
    room = coordinator.room("call")
    lease = await room.floor.request("a")
    await lease.release()

    with pytest.raises(StaleFence):
        await room.context.update({"n": 1}, lease=lease)
    assert (await room.context.read()).version == 0


async def test_what_is_too_large_names_its_largest_keys(coordinator: Coordinator):
    with pytest.raises(ContextTooLarge, match="'transcript'"):
        await coordinator.share_context("call", {"transcript": "x" * 70_000, "n": 1})


@pytest.mark.parametrize("wrong", [[1], "text", None, {"a": {1, 2}}, {"a": float("nan")}, {"a": "\ud800"}])
async def test_what_is_no_json_object_is_refused(coordinator: Coordinator, wrong: Any):
    with pytest.raises(InvalidArgument):
        await coordinator.share_context("call", wrong)


async def test_a_change_that_returns_no_object_is_refused(coordinator: Coordinator):
    wrong: Any = lambda data: [data]  # noqa: E731

    with pytest.raises(InvalidArgument):
        await coordinator.room("call").context.transform(wrong)


async def test_a_snapshot_is_what_a_reader_will_read(coordinator: Coordinator):
    keyed: Any = {1: "x"}

    written = await coordinator.share_context("call", keyed)

    assert written == await coordinator.read_context("call")


async def test_a_write_gives_a_scope_its_whole_life_again(coordinator: Coordinator, store: Store):
    context = coordinator.context("user:42", ttl=timedelta(seconds=30))
    await context.update({"n": 1})
    (key,) = await store.command("KEYS", "*user:42*")
    await store.command("PEXPIRE", key, 1000)
    await context.update({"n": 2})

    assert await store.command("PTTL", key) > 29_000


async def test_a_watcher_sees_the_latest_state(coordinator: Coordinator, other: Coordinator):
    watch = coordinator.room("call").context.watch()
    assert (await anext(watch)).data == {}

    await other.share_context("call", {"intent": "refund"})

    assert (await asyncio.wait_for(anext(watch), 5)).data == {"intent": "refund"}


async def test_a_ttl_that_is_none_is_refused(coordinator: Coordinator):
    with pytest.raises(InvalidArgument):
        coordinator.context("user:42", ttl=timedelta(seconds=-1))
