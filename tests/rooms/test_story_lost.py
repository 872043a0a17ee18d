"""Redis comes back empty, and the agent that held the floor is gone as well: whoever steps in goes on with the call."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest

from coordination.coordinator import Coordinator
from coordination.dev.backend import BackendServer
from coordination.dev.valkey import EmbeddedValkey
from coordination.ids import DEFAULT_TENANT, RoomName
from coordination.livekit.record import SessionRecord
from coordination.livekit.saving import leftovers
from coordination.livekit.saving.leftovers import LOST, Round
from coordination.persistence import BackendClient, PersistenceSettings
from coordination.persistence.values import SavedCall
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import STANDBY, Player, Team, gathering
from tests.rooms.test_handoff_workers import until


async def lose(valkey: EmbeddedValkey, holder: Player) -> None:
    """Redis first, so that the holder leaves nothing there; it comes back empty."""
    valkey.kill()
    await holder.job.close()
    await valkey.start()


async def asked(team: Team, player: Player, words: str) -> None:
    await team.caller.say(words)
    await eventually(lambda: f"{player.role} heard {words}" in player.said, f"{player.role} answers", within=10)
    await team.quiet()


async def test_a_standby_knows_the_story_and_a_later_agent_what_the_backend_has(
    make_room: RoomFactory, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BackendServer() as backend:
        for name, value in backend.environment.items():
            monkeypatch.setenv(name, value)
        async with gathering(await make_room(), valkey.url) as team:
            receptionist = await team.join("receptionist")
            billing = await team.join("billing", metadata=STANDBY)
            await eventually(lambda: '"fence"' in receptionist.job.rtc.metadata, "the record stands")
            await team.quiet()
            await asked(team, receptionist, "one two")
            before = [turn.text for turn in await team.turns()]

            await lose(valkey, receptionist)
            del team.players["receptionist"]
            await team.holder("billing", within=20)
            await eventually(lambda: billing.said, "it goes on", within=10)
            await team.quiet()

            assert "hello from billing" not in billing.said, "a second greeting"
            assert [turn.text for turn in await team.turns()][: len(before)] == before
            assert (
                billing.session.history.messages()[0].text_content == '[said by receptionist] "hello from receptionist"'
            )
            await asked(team, billing, "three four")
            await all_saved(team, BackendClient(), "billing heard three four")

            await lose(valkey, billing)
            del team.players["billing"]
            technical = await team.join("technical")
            await team.holder("technical", within=20)
            await eventually(lambda: technical.session.history.messages(), "it knows the story")
            await eventually(lambda: technical.said, "it goes on", within=10)
            await team.quiet()

            assert "hello from technical" not in technical.said, "a second greeting"
            known = [message.text_content for message in technical.session.history.messages()]
            assert known[0] == '[said by receptionist] "hello from receptionist"'
            assert "three four" in known
            await asked(team, technical, "five six")
            rows = await all_saved(team, BackendClient(), "technical heard five six")
            assert [text for text in rows if text in ("one two", "three four", "five six")] == [
                "one two",
                "three four",
                "five six",
            ]


async def test_a_call_that_redis_forgot_is_listed_again_and_so_a_worker_can_end_its_record(
    make_room: RoomFactory, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is being saved, and who called, stand in Redis alone; all agents are lost before the call is over."""
    monkeypatch.setattr(leftovers, "LEFT_AFTER", timedelta(0))
    with BackendServer() as backend:
        for name, value in backend.environment.items():
            monkeypatch.setenv(name, value)
        live = await make_room(metadata=SessionRecord(user="ann", conversation="case-17").format())
        async with gathering(live, valkey.url) as team, AsyncExitStack() as parts:
            receptionist = await team.join("receptionist")
            await team.quiet()
            await asked(team, receptionist, "one two")

            valkey.kill()
            await valkey.start()
            coordinator = await parts.enter_async_context(Coordinator.open(valkey.url))
            call = SavedCall(session=RoomName(live.sid), room=live.name, conversation="case-17", user="ann")

            async def listed() -> bool:
                return await coordinator.open_calls().read() == [call]

            await until(listed, "the call is listed again", within=20)
            await team.holder("receptionist", within=20)
            await asked(team, receptionist, "three four")
            await receptionist.job.close()
            del team.players["receptionist"]
            assert await listed(), "the caller is still there: nobody has ended the record"

            worker = Round(coordinator, PersistenceSettings(), parts)
            await worker.go({DEFAULT_TENANT})

            assert await coordinator.open_calls().read() == []
            record = await ended(backend, live.sid)
    assert (record["reason"], record["conversation_id"], record["user_id"]) == (LOST, "case-17", "ann")
    assert (record["messages"], record["participants"], record["roles"]) == (5, 1, ["receptionist"])


async def ended(backend: BackendServer, sid: str) -> dict[str, Any]:
    """The record of the call, once the backend has it."""
    headers = {"Authorization": f"Bearer {backend.token}"}
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as client:

        async def there() -> bool:
            return (await client.get(f"/v1/sessions/{sid}")).is_success

        await until(there, "the record is saved", within=20)
        return (await client.get(f"/v1/sessions/{sid}")).json()


async def all_saved(team: Team, backend: BackendClient, last: str) -> list[str]:
    """What the backend has, once the last words are there."""
    rows: list[str] = []

    async def saved() -> bool:
        rows[:] = [each.text for each in (await backend.get_recent_messages(team.room.sid, limit=50)).messages]
        return last in rows

    await until(saved, "all is saved", within=20)
    await backend.close()
    return rows
