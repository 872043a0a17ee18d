"""The outbox in both its forms: order, claims, retries, what is set aside, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from coordination.errors import InvalidArgument, InvalidName
from coordination.ids import Tenant
from coordination.persistence.errors import OutboxFormat, OutboxUnavailable
from coordination.persistence.outbox import box as promises
from coordination.persistence.outbox import file, stream
from coordination.persistence.outbox.box import Claim, Failure, Outbox
from coordination.persistence.outbox.file import FileOutbox
from coordination.persistence.outbox.item import ItemKind, OutboxItem
from coordination.persistence.outbox.stream import StreamOutbox
from coordination.store import Store


def turn(conversation: str, text: str, *, user: str | None = None, key: str | None = None) -> OutboxItem:
    item = OutboxItem(kind=ItemKind.TURN, conversation=conversation, payload={"text": text}, user=user)
    return item if key is None else OutboxItem(kind=item.kind, conversation=conversation, payload=item.payload, id=key)


async def claimed(outbox: Outbox) -> Claim:
    found = await outbox.claim()
    assert isinstance(found, Claim)
    return found


def texts(items: Sequence[OutboxItem]) -> list[object]:
    return [item.payload["text"] for item in items]


async def test_items_come_out_in_the_order_of_their_conversation_as_they_went_in(outbox: Outbox) -> None:
    for number in range(3):
        await outbox.append(turn("a", f"a{number}"))
        await outbox.append(turn("b", f"b{number}"))

    first, second = await claimed(outbox), await claimed(outbox)

    assert {first.conversation: texts(first.items), second.conversation: texts(second.items)} == {
        "a": ["a0", "a1", "a2"],
        "b": ["b0", "b1", "b2"],
    }
    assert isinstance(await outbox.claim(), timedelta)


async def test_an_item_is_the_same_after_its_stay(outbox: Outbox) -> None:
    item = OutboxItem(kind=ItemKind.SESSION, conversation="ü", payload={"n": [1, None, {"x": "ß"}]}, user="u")
    await outbox.append(item)

    assert (await claimed(outbox)).items == (item,)


async def test_many_appends_at_once_are_all_kept_and_in_order(outbox: Outbox) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(outbox.append(turn(f"c{number % 7}", f"{number}")))

    assert (await outbox.statistics()).waiting == 200
    for _ in range(7):
        claim = await claimed(outbox)
        numbers = [int(str(text)) for text in texts(claim.items)]
        assert numbers == sorted(numbers)


async def test_what_was_delivered_is_gone_and_leaves_nothing(outbox: Outbox) -> None:
    await outbox.append(turn("a", "1"))
    await outbox.append(turn("a", "2"))
    claim = await claimed(outbox)

    await outbox.settle(claim, delivered=1)
    rest = await claimed(outbox)
    await outbox.settle(rest, delivered=1)

    assert texts(rest.items) == ["2"]
    statistics = await outbox.statistics()
    assert (statistics.waiting, statistics.conversations, statistics.oldest) == (0, 0, None)
    if isinstance(outbox, StreamOutbox):
        assert await outbox._store.command("DBSIZE") == 0


async def test_a_failure_holds_up_its_own_conversation_and_counts(outbox: Outbox) -> None:
    await outbox.append(turn("a", "1"))
    claim = await claimed(outbox)
    await outbox.settle(claim, delivered=0, failure=Failure(reason="away", poison=False, retry_in=timedelta(0.05)))

    await outbox.append(turn("b", "other"))
    other = await claimed(outbox)
    assert (other.conversation, other.attempts) == ("b", 0)
    await outbox.settle(other, delivered=1)
    assert isinstance(await outbox.claim(), timedelta)


async def test_attempts_are_counted_until_something_is_delivered(outbox: Outbox) -> None:
    now = Failure(reason="away", poison=False)
    for text in ("1", "2"):
        await outbox.append(turn("a", text))

    counted: list[int] = []
    for delivered in (0, 0, 1, 0):
        claim = await claimed(outbox)
        counted.append(claim.attempts)
        await outbox.settle(claim, delivered=delivered, failure=now)

    assert counted == [0, 1, 2, 1]


async def test_a_drainer_that_dies_loses_its_claim_and_not_the_items(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (promises, file, stream):
        monkeypatch.setattr(module, "CLAIM", timedelta(milliseconds=50))
    await outbox.append(turn("a", "1"))
    dead = await claimed(outbox)
    assert isinstance(await outbox.claim(), timedelta)
    await asyncio.sleep(0.06)

    second = await claimed(outbox)
    await outbox.append(turn("a", "2"))
    await outbox.settle(dead, delivered=1)  # it was only slow: what it delivered is removed, the claim is not touched

    assert texts(second.items) == ["1"]
    assert texts(await outbox.waiting()) == ["2"]
    await outbox.settle(second, delivered=1)
    assert texts((await claimed(outbox)).items) == ["2"]


async def test_a_poison_item_is_set_aside_the_next_goes_on_and_it_can_be_replayed(outbox: Outbox) -> None:
    poison = turn("a", "poison")
    for item in (poison, turn("a", "next")):
        await outbox.append(item)
    claim = await claimed(outbox)

    await outbox.settle(claim, delivered=0, failure=Failure(reason="it answered 422", poison=True))

    (aside,) = await outbox.set_aside()
    assert (aside.item, aside.reason) == (poison, "it answered 422")
    rest = await claimed(outbox)
    assert texts(rest.items) == ["next"]
    await outbox.settle(rest, delivered=1)
    assert await outbox.replay("no such item") == 0
    assert await outbox.replay(poison.id) == 1
    assert await outbox.replay() == 0
    assert (await claimed(outbox)).items == (poison,)


async def test_a_user_is_forgotten_delivered_or_not(outbox: Outbox) -> None:
    for name in ("ann", "ben"):
        await outbox.append(turn(f"call of {name}", name, user=name))
        await outbox.append(turn("shared", name, user=name))
    poison = await claimed(outbox)
    await outbox.settle(poison, delivered=0, failure=Failure(reason="no", poison=True))

    removed = await outbox.forget("ann") + await outbox.forget("ann")

    left = [*await outbox.waiting(), *(aside.item for aside in await outbox.set_aside())]
    assert removed == 2
    assert {item.user for item in left} == {"ben"}
    assert len(left) == 2
    with pytest.raises(InvalidArgument):
        await outbox.forget("")


async def test_tenants_do_not_see_each_other(outbox: Outbox, tmp_path: Path) -> None:
    other: FileOutbox | StreamOutbox
    if isinstance(outbox, StreamOutbox):
        other = StreamOutbox(outbox._store, tenant=Tenant("acme"))
    else:
        other = FileOutbox(tmp_path / "outbox.sqlite3", tenant=Tenant("acme"))
    await other.open()
    await outbox.append(turn("a", "default's", key="same"))
    await other.append(turn("a", "acme's", key="same"))

    mine, theirs = await claimed(outbox), await claimed(other)
    await outbox.settle(mine, delivered=1)

    assert (texts(mine.items), texts(theirs.items)) == (["default's"], ["acme's"])
    assert (await other.statistics()).waiting == 1
    await other.close()


async def test_an_item_that_is_too_large_or_has_no_conversation_is_refused_at_once(outbox: Outbox) -> None:
    with pytest.raises(InvalidArgument, match="262144 is the limit"):
        await outbox.append(turn("a", "x" * 300_000))
    with pytest.raises(InvalidName):
        turn("", "x")
    assert (await outbox.statistics()).waiting == 0


async def test_a_conversation_may_have_any_name(outbox: Outbox) -> None:
    names = ["t:a", "n:a", "a:n", "c:due", "a b", "x" * 256]
    for name in names:
        await outbox.append(turn(name, name))
        claim = await claimed(outbox)
        await outbox.settle(claim, delivered=0, failure=Failure(reason="", poison=False, retry_in=timedelta(hours=1)))

    assert sorted(str(text) for text in texts(await outbox.waiting())) == sorted(names)


async def test_a_file_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")

    with pytest.raises(OutboxUnavailable, match="BATON_OUTBOX_FILE"):
        await FileOutbox(tmp_path / "taken" / "outbox.sqlite3").open()


async def test_a_file_of_another_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    box = await FileOutbox(path).open()
    await box._drains.run(lambda connection: connection.execute("PRAGMA user_version = 9").fetchall())
    await box.close()

    with pytest.raises(OutboxFormat, match="is of format 9, and this release knows 1"):
        await FileOutbox(path).open()


async def test_a_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    box = await FileOutbox(tmp_path / "deep" / "outbox.sqlite3").open()
    await box.append(turn("a", "secret"))

    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "deep").iterdir()}
    await box.close()

    assert len(modes) == 3
    assert set(modes.values()) == {0}


async def test_a_closed_file_takes_nothing(tmp_path: Path) -> None:
    box = await FileOutbox(tmp_path / "outbox.sqlite3").open()
    await box.close()

    with pytest.raises(OutboxUnavailable):
        await box.append(turn("a", "1"))


async def test_an_item_of_a_later_release_stays_for_one_that_knows_it(store: Store) -> None:
    outbox = StreamOutbox(store)
    await outbox.append(turn("a", "1"))
    keys = store.keys.outbox(Tenant("default"))
    await store.command("XADD", f"{keys.items}b", "*", "item", '{"v": 2, "user": "u"}')
    await store.command("ZADD", keys.due, 1, "b")

    with pytest.raises(OutboxFormat, match="format 2, and this release knows 1"):
        await outbox.claim()

    assert (await claimed(outbox)).conversation == "a"
    assert await store.command("XLEN", f"{keys.items}b") == 1


async def test_redis_that_is_away_is_said_so(store: Store) -> None:
    outbox = StreamOutbox.at("redis://127.0.0.1:1")

    with pytest.raises(OutboxUnavailable, match="outbox in Redis cannot be opened"):
        await outbox.open()
