"""What the store recorded is in the history before the store loses it."""

from __future__ import annotations

import asyncio
import re
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.testing.checker import Rule, check
from coordination.testing.faults import RedisFaults, inflict
from coordination.testing.history import CallEnded, FloorEvent, History, KeyLeft
from coordination.testing.recorder import EventRecorder, record_keys

GUIDE = Path(__file__).parents[2] / "docs/how-to/chaos.md"


def test_the_guide_uses_what_is_there() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, object] = {}

    exec(compile(blocks[0], str(GUIDE), "exec"), names)

    assert "struck_call" in names
    for block in blocks[1:]:
        compile(f"async def step():\n{textwrap.indent(block, '    ')}", str(GUIDE), "exec")
    rules = set(re.findall(r"`([a-z-]+)`", GUIDE.read_text()))
    assert {rule.value for rule in Rule} <= rules


async def until(holds: Callable[[], object], description: str) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, f"not within 10 s: {description}"
        await asyncio.sleep(0.01)


async def test_events_survive_wipes_restarts_and_older_states_of_the_store() -> None:
    history = History()
    async with EmbeddedValkey() as server:
        faults = RedisFaults(server)
        async with (
            Coordinator.open(server.url) as here,
            EventRecorder(history, call="c", room="room", redis_url=server.url) as recorder,
        ):

            async def grant(agent: str) -> int:
                async with here.room("room").floor.hold(agent) as lease:
                    return lease.fence

            def granted() -> list[int]:
                return [event.fence for event in history.of(FloorEvent) if event.kind == "grant"]

            fences = [await grant("a")]
            await faults.remember()
            steps: list[Callable[[], Awaitable[object]]] = [
                lambda: inflict(faults.wipe()),
                lambda: inflict(faults.restart()),
                lambda: inflict(faults.restart_old()),
                lambda: inflict(faults.drop_subscriptions()),
                lambda: inflict(faults.restart_empty()),
            ]
            for step in steps:
                await until(lambda: granted() == fences, "the grant is recorded")
                await recorder.catch_up()
                await step()
                fences.append(await grant("b"))
            await until(lambda: granted() == fences, "the last grant is recorded")

    assert fences == sorted(set(fences))
    assert not check(history).broken(Rule.FENCES_GROW)
    assert not check(history).broken(Rule.ONE_HOLDER)


async def test_keys_are_found_with_the_call_they_belong_to() -> None:
    history = History()
    async with EmbeddedValkey() as server, Coordinator.open(server.url) as here:
        async with here.room("room").floor.hold("a"), here.lock("paper"):
            await record_keys(history, redis_url=server.url, rooms={"room": "c"})
        await RedisFaults(server).command("SET", "baton:1:{default/room}:floor:more", "x")
        await record_keys(history, redis_url=server.url, rooms={"room": "c"})
    history.append(CallEnded(call="c", at=time.monotonic()))

    keys = history.of(KeyLeft)
    assert {key.call for key in keys} == {"c", ""}
    assert all(key.ttl for key in keys if not key.key.endswith("more"))
    # Events of a room without a roster live for an hour; nothing but the one key stays for ever.
    found = [violation.text for violation in check(history).broken(Rule.NOTHING_LEFT)]
    assert [text for text in found if "no time to live" in text] == [
        "baton:1:{default/room}:floor:more has no time to live"
    ]
