"""`baton outbox` as an operator uses it, on both forms."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coordination.cli.app import app
from coordination.dev.valkey import EmbeddedValkey
from coordination.persistence.outbox.box import Claim, Failure, Outbox
from coordination.persistence.outbox.stream import StreamOutbox
from tests.persistence.test_outbox import turn


@pytest.fixture
def form(outbox: Outbox, valkey: EmbeddedValkey, tmp_path: Path) -> dict[str, str]:
    """The environment in which `baton` finds the outbox."""
    if isinstance(outbox, StreamOutbox):
        return {"BATON_REDIS_URL": valkey.url}
    return {"BATON_REDIS_URL": "", "BATON_OUTBOX_FILE": str(tmp_path / "outbox.sqlite3")}


async def baton(form: dict[str, str], *arguments: str) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", **form})
    return await asyncio.to_thread(runner.invoke, app, ["outbox", *arguments])


async def test_what_was_set_aside_is_shown_without_what_was_said_and_sent_again(
    outbox: Outbox, form: dict[str, str]
) -> None:
    poison, good = turn("call-7", "my secret", user="ann"), turn("call-8", "another secret", user="ben")
    await outbox.append(poison)
    claim = await outbox.claim()
    assert isinstance(claim, Claim)
    await outbox.settle(claim, delivered=0, failure=Failure(reason="it answered 422", poison=True))
    await outbox.append(good)

    shown, listed = await baton(form, "show"), await baton(form, "show", "--json")

    assert (shown.exit_code, listed.exit_code) == (1, 1)
    assert "1 items of 1 conversations wait" in shown.output
    assert poison.id in shown.output
    assert "it answered 422" in shown.output
    assert "secret" not in shown.output + listed.output
    assert [each["id"] for each in json.loads(listed.output)["items"]] == [poison.id]

    assert (await baton(form, "replay", "nothing")).exit_code == 4
    replayed = await baton(form, "replay", poison.id)
    forgotten = await baton(form, "forget", "ben", "--json")
    after = await baton(form, "show", "--json")

    assert (replayed.exit_code, replayed.output) == (0, "1 items are on their way again.\n")
    assert json.loads(forgotten.output) == {"removed": 1}
    assert after.exit_code == 0
    assert [item.id for item in await outbox.waiting()] == [poison.id]
