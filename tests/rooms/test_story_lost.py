"""Redis comes back empty, and the agent that held the floor is gone as well: whoever steps in goes on with the call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordination.dev.backend import BackendServer
from coordination.dev.valkey import EmbeddedValkey
from coordination.persistence import BackendClient
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import STANDBY, Player, Team, gathering
from tests.rooms.test_handoff_workers import until


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey(directory=tmp_path) as server:
        yield server


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


async def all_saved(team: Team, backend: BackendClient, last: str) -> list[str]:
    """What the backend has, once the last words are there."""
    rows: list[str] = []

    async def saved() -> bool:
        rows[:] = [each.text for each in (await backend.get_recent_messages(team.room.sid, limit=50)).messages]
        return last in rows

    await until(saved, "all is saved", within=20)
    await backend.close()
    return rows
