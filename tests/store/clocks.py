"""A server whose clock can be stepped: a real one, whose scripts read its time shifted by what a key says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from coordination.store import Script, Store

CLOCK = "test:clock"
_SHIFTED = f"""
local function shifted()
  local time = redis.call('TIME')
  return {{tostring(tonumber(time[1]) + tonumber(redis.call('GET', '{CLOCK}') or '0')), time[2]}}
end
"""


def shift_the_clock_of_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every script of every store reads the shifted time; `TIME` itself answers with it, too."""
    run, command = Store.run, Store.command

    async def shifted_run(self: Store, script: Script, *args: Any, **options: Any) -> Any:
        return await run(self, _shifted(script), *args, **options)

    async def shifted_command(self: Store, *words: str | bytes | int, **options: Any) -> Any:
        reply = await command(self, *words, **options)
        if words == ("TIME",):
            step = int(await command(self, "GET", CLOCK) or 0)
            return [int(reply[0]) + step, reply[1]]
        return reply

    monkeypatch.setattr(Store, "run", shifted_run)
    monkeypatch.setattr(Store, "command", shifted_command)


def _shifted(script: Script) -> Script:
    first, rest = script.text.split("\n", 1)
    text = first + _SHIFTED + rest.replace("redis.call('TIME')", "shifted()")
    # Another digest: the server must not run a script of the same name that it knows with its own clock.
    return replace(script, text=text, sha=script.sha[::-1])


async def step(store: Store, by: timedelta) -> None:
    """Steps the clock, counted from the server's own; forward if `by` is positive."""
    await store.command("SET", CLOCK, int(by.total_seconds()), "EX", 60)
