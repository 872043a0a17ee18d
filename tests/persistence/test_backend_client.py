"""The backend client: what it repeats, what it gives up, and what its errors say."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from coordination.errors import InvalidArgument, InvalidSettings
from coordination.persistence import (
    BackendAnswerUnreadable,
    BackendClient,
    BackendNotConfigured,
    BackendRefused,
    BackendUnauthorized,
    BackendUnavailable,
    ConversationTurn,
    PersistenceSettings,
    SessionSummary,
    Speaker,
    Utterance,
)
from tests.persistence.service import Service

CHECKOUT = Path(__file__).parents[2]


def turn(*texts: str) -> ConversationTurn:
    return ConversationTurn(messages=tuple(Utterance(speaker=Speaker.CALLER, text=text) for text in texts), role="solo")


@pytest.fixture
async def direct(settings: PersistenceSettings) -> BackendClient:
    """Without an outbox: what is saved waits for the backend itself."""
    return BackendClient(settings)


async def test_a_user_is_read_and_one_that_is_not_known_is_none(direct: BackendClient) -> None:
    known, unknown = await direct.get_user_context("ann"), await direct.get_user_context("be/n")

    assert known is not None
    assert (known.user.name, known.conversations, known.invoices) == ("Ann", 2, ())
    assert unknown is None
    await direct.close()


async def test_recent_messages_are_asked_for_by_conversation_or_by_room(
    direct: BackendClient, service: Service
) -> None:
    recent = await direct.get_recent_messages("call-7")
    await direct.get_recent_messages(room="lobby", limit=3)

    assert (recent.conversation_id, recent.messages) == ("call-7", ())
    with pytest.raises(InvalidArgument, match="one of the two"):
        await direct.get_recent_messages()
    with pytest.raises(InvalidArgument, match="one of the two"):
        await direct.get_recent_messages("a", room="b")
    await direct.close()


@pytest.mark.parametrize("fault", ["500", "429", "garbage", "lost"])
async def test_what_is_safe_to_repeat_is_repeated_within_the_time(
    direct: BackendClient, service: Service, fault: str
) -> None:
    service.fault = fault

    def recover(*_: object) -> None:
        service.fault = ""

    asyncio.get_running_loop().call_later(0.25, recover)
    await direct.save_conversation_turn("call-7", turn("hello"), key="one")

    assert service.texts("call-7") == ["hello"]
    assert len(service.requests) > 1
    await direct.close()


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("500", BackendUnavailable, "it answered 500"),
        ("hang", BackendUnavailable, "no answer in time"),
        ("garbage", BackendAnswerUnreadable, "is not the backend"),
        ("wrong json", BackendAnswerUnreadable, "sent no object"),
    ],
)
async def test_a_backend_that_does_not_recover_is_given_up_in_time(
    direct: BackendClient, service: Service, fault: str, error: type[Exception], words: str
) -> None:
    service.fault = fault
    began = time.monotonic()

    with pytest.raises(error, match=words):
        await direct.get_user_context("ann")

    assert time.monotonic() - began < 5  # the bound is 1 s; the rest is a busy machine
    await direct.close()


async def test_what_the_backend_asks_to_wait_longer_than_there_is_time_is_not_repeated(
    direct: BackendClient, service: Service
) -> None:
    service.fault, service.retry_after = "429", "60"

    with pytest.raises(BackendUnavailable, match="429") as raised:
        await direct.get_user_context("ann")

    assert raised.value.retry_after == timedelta(seconds=60)
    assert len(service.requests) == 1
    await direct.close()


async def test_a_refusal_is_not_repeated_and_says_why(direct: BackendClient, service: Service) -> None:
    service.poison = "poison"

    with pytest.raises(BackendRefused, match=r"422: .*it is poison"):
        await direct.save_conversation_turn("call-7", turn("poison"))

    assert len(service.requests) == 1
    await direct.close()


async def test_a_wrong_token_is_refused_and_never_shown(settings: PersistenceSettings) -> None:
    client = BackendClient(settings.model_copy(update={"backend_token": SecretStr("bt_wrong")}))

    with pytest.raises(BackendUnauthorized, match="BATON_BACKEND_TOKEN") as raised:
        await client.get_user_context("ann")

    assert "bt_wrong" not in str(raised.value) + repr(client.settings)
    await client.close()


async def test_a_backend_that_is_away_says_what_to_check(settings: PersistenceSettings, service: Service) -> None:
    await service.stop()
    client = BackendClient(settings)

    with pytest.raises(BackendUnavailable, match=r"cannot be reached.*BATON_BACKEND_URL"):
        await client.get_user_context("ann")
    await client.close()


async def test_an_answer_of_another_shape_is_no_crash(direct: BackendClient) -> None:
    with pytest.raises(BackendAnswerUnreadable, match="not a UserContext"):
        await direct.get_user_context("odd")
    await direct.close()


async def test_what_is_wrong_with_the_settings_is_said_at_once() -> None:
    with pytest.raises(BackendNotConfigured, match="BATON_BACKEND_URL"):
        BackendClient(PersistenceSettings(backend_url=None))
    with pytest.raises(InvalidSettings, match="no address of a backend"):
        BackendClient(PersistenceSettings(backend_url="localhost:8000"))
    with pytest.raises(InvalidSettings, match="BATON_BACKEND_TIMEOUT"):
        PersistenceSettings(backend_timeout=timedelta(0))


async def test_a_session_and_a_change_of_the_room_go_to_their_places(direct: BackendClient, service: Service) -> None:
    summary = SessionSummary(id="RM_1", started_at=datetime.now(UTC), conversation_id="call-7", roles=("solo",))

    await direct.save_session(summary)
    merged = await direct.update_room_metadata("a room", {"topic": None}, fence=7)
    await direct.update_participant("a room", "ann", attributes={"mood": ""})

    assert merged == {"merged": True}
    put, patch, participant = service.requests
    assert put[:2] == ("PUT", "/v1/sessions/RM_1")
    assert "id" not in put[2]
    assert patch == ("PATCH", "/v1/rooms/a room/metadata", {"metadata": {"topic": None}, "fence": 7})
    assert participant == ("PATCH", "/v1/rooms/a room/participant", {"attributes": {"mood": ""}})
    await direct.close()


def test_importing_it_imports_neither_redis_nor_livekit() -> None:
    script = (
        "import sys\n"
        "sys.modules['redis'] = None\n"
        "sys.modules['livekit'] = None\n"
        "from coordination.persistence import *\n"
        "from coordination.persistence.outbox.file import FileOutbox\n"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
