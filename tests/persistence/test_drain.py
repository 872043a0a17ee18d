"""From the outbox to the backend: everything, exactly once and in order, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from coordination.persistence import BackendClient, OutboxUnavailable, PersistenceSettings
from coordination.persistence.client import DELIVER_WITHIN
from coordination.persistence.outbox import drain
from coordination.persistence.outbox.box import CLAIM, Outbox
from coordination.persistence.outbox.file import FileOutbox
from tests.persistence.service import Service
from tests.persistence.test_backend_client import turn


async def eventually(condition: Callable[[], bool], what: str, *, within: float = 10) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


async def test_turns_arrive_in_the_order_of_their_conversation(
    settings: PersistenceSettings, service: Service, outbox: Outbox
) -> None:
    client = BackendClient(settings, outbox=outbox).start()

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(_say(client, name, 30))
    await client.close()

    for name in ("a", "b", "c"):
        assert service.texts(name) == [f"{name}{number}" for number in range(30)]
    assert (await outbox.statistics()).waiting == 0


async def _say(client: BackendClient, conversation: str, count: int) -> None:
    for number in range(count):
        await client.save_conversation_turn(conversation, turn(f"{conversation}{number}"))


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("fault", ["500", "429", "garbage", "lost", "away", "wrong json"])
async def test_a_backend_that_fails_for_a_while_has_everything_once_afterwards(
    settings: PersistenceSettings, service: Service, outbox: Outbox, fault: str
) -> None:
    client = BackendClient(settings, outbox=outbox).start()
    await _say(client, "a", 3)
    await eventually(lambda: len(service.texts("a")) == 3, "the first are there")

    if fault == "away":
        await service.stop()
    service.fault = fault
    for number in range(3, 10):
        await client.save_conversation_turn("a", turn(f"a{number}"))
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    service.fault = ""
    if fault == "away":
        await service.start()

    await eventually(lambda: len(service.texts("a")) >= 10, "all are there")
    await client.close()
    assert service.texts("a") == [f"a{number}" for number in range(10)]
    assert (await outbox.statistics()).set_aside == 0


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("patience", [2.0, 0.05], ids=["is waited for", "is given up each time"])
async def test_a_slow_backend_has_everything_once_and_nobody_waits_for_it(
    settings: PersistenceSettings, service: Service, outbox: Outbox, patience: float
) -> None:
    """Given up, it has saved the turn all the same, and is sent it again."""
    service.fault, service.delay = "slow", 0.15
    client = BackendClient(settings, outbox=outbox)
    client._drain = drain.Drain(outbox, lambda item: client.deliver(item, within=timedelta(seconds=patience)))
    client.start()

    await _say(client, "a", 8)
    assert len(service.texts("a")) < 8, "saving waits for the backend"
    if patience < service.delay:
        await eventually(lambda: len(service.requests) >= 4, "the same is sent again and again")
        service.fault = ""

    await eventually(lambda: len(service.texts("a")) == 8, "all are there")
    await client.close()
    assert service.texts("a") == [f"a{number}" for number in range(8)]
    statistics = await outbox.statistics()
    assert (statistics.waiting, statistics.set_aside) == (0, 0)


def test_a_minute_of_failures_poisons_nothing_and_ten_seconds_are_waited_for() -> None:
    """What the other tests do with shorter times: here are the times themselves."""
    waited, attempts = timedelta(0), 0
    while waited < timedelta(minutes=1):
        attempts += 1
        waited += drain._retry_in(attempts, None)

    assert attempts < drain.FAULTS_BEFORE_POISON / 2
    assert timedelta(seconds=10) < DELIVER_WITHIN
    assert CLAIM / 2 + DELIVER_WITHIN < CLAIM, "what is begun in time ends within the claim"


@pytest.mark.usefixtures("quick_retries")
async def test_a_poison_item_is_set_aside_reported_and_replayed_when_the_backend_takes_it(
    settings: PersistenceSettings, service: Service, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    service.poison = "poison"
    client = BackendClient(settings, outbox=outbox).start()

    for text in ("before", "poison", "behind"):
        await client.save_conversation_turn("a", turn(text))
    await eventually(lambda: "behind" in service.texts("a"), "what is behind it is delivered")

    assert service.texts("a") == ["before", "behind"]
    (aside,) = await outbox.set_aside()
    assert "it is poison" in aside.reason
    assert "baton outbox show" in caplog.text
    assert "poison" not in caplog.text.replace("it is poison", "")  # what was said is nobody's business in a log
    service.poison = ""
    assert await outbox.replay() == 1
    await eventually(lambda: "poison" in service.texts("a"), "it is delivered at last")
    await client.close()


@pytest.mark.usefixtures("quick_retries")
async def test_an_item_over_which_the_backend_stumbles_for_ever_is_set_aside(
    settings: PersistenceSettings, service: Service, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "FAULTS_BEFORE_POISON", 5)
    service.fault = "500"
    client = BackendClient(settings, outbox=outbox).start()

    await client.save_conversation_turn("a", turn("first"))
    await eventually(lambda: len(service.requests) >= 5, "it was tried")
    service.fault = ""
    await client.save_conversation_turn("a", turn("second"))
    await eventually(lambda: service.texts("a") == ["second"], "what is behind it is delivered")
    await client.close()

    assert len(await outbox.set_aside()) == 1


@pytest.mark.usefixtures("quick_retries")
async def test_a_backend_that_is_away_or_refuses_the_token_poisons_nothing(
    settings: PersistenceSettings, service: Service, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "FAULTS_BEFORE_POISON", 3)
    service.fault = "429"
    client = BackendClient(settings, outbox=outbox).start()

    await client.save_conversation_turn("a", turn("kept"))
    await eventually(lambda: len(service.requests) >= 6, "it was tried often")
    service.fault = ""

    await eventually(lambda: service.texts("a") == ["kept"], "it is delivered")
    await client.close()


async def test_one_slow_conversation_does_not_hold_up_the_others(
    settings: PersistenceSettings, service: Service, outbox: Outbox
) -> None:
    client = BackendClient(settings, outbox=outbox)
    stuck = asyncio.Event()
    deliver = client.deliver

    async def slow(item: object, **options: object) -> None:
        if getattr(item, "conversation") == "slow":  # noqa: B009
            await stuck.wait()
        await deliver(item, **options)  # type: ignore[arg-type]

    client._drain = drain.Drain(outbox, slow)
    client.start()
    await client.save_conversation_turn("slow", turn("slow"))
    await _say(client, "b", 5)

    await eventually(lambda: len(service.texts("b")) == 5, "the other conversation is delivered")
    assert service.texts("slow") == []
    stuck.set()
    await client.close()
    assert service.texts("slow") == ["slow"]


async def test_what_belongs_to_somebody_who_was_erased_is_dropped(
    settings: PersistenceSettings, service: Service, outbox: Outbox
) -> None:
    service.erased.add("a")
    client = BackendClient(settings, outbox=outbox).start()

    await client.save_conversation_turn("a", turn("gone"), user_id="ann")
    await client.close()

    statistics = await outbox.statistics()
    assert (statistics.waiting, statistics.set_aside) == (0, 0)
    assert service.texts("a") == []


async def test_a_client_that_closes_does_not_wait_for_a_backend_that_is_away(
    settings: PersistenceSettings, service: Service, outbox: Outbox
) -> None:
    await service.stop()
    client = BackendClient(settings, outbox=outbox).start()
    await client.save_conversation_turn("a", turn("kept"))

    async with asyncio.timeout(8):
        await client.close(within=timedelta(seconds=2))

    assert (await outbox.statistics()).waiting == 1
    await service.start()
    later = BackendClient(settings, outbox=outbox).start()
    await eventually(lambda: service.texts("a") == ["kept"], "the next one delivers it")
    await later.close()


async def test_a_save_that_is_not_durable_says_so(settings: PersistenceSettings) -> None:
    outbox = await FileOutbox(settings.outbox_file).open()
    client = BackendClient(settings, outbox=outbox).start()
    await client.close()
    await outbox.close()

    with pytest.raises(OutboxUnavailable):
        await client.save_conversation_turn("a", turn("lost"))
