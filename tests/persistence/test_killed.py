"""Real processes that die with undelivered turns, and the reference backend: everything arrives, once and in order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from coordination.dev.backend import BackendServer
from coordination.dev.valkey import EmbeddedValkey
from coordination.persistence import BackendClient, PersistenceSettings
from coordination.store import Store

CHECKOUT = Path(__file__).parents[2]
SAVER = Path(__file__).with_name("saver.py")


class Scene:
    """A backend, an outbox of one form, and the processes that save to it."""

    def __init__(self, backend: BackendServer, folder: Path, redis_url: str | None) -> None:
        self.backend, self.redis_url = backend, redis_url
        self.environment = {
            **backend.environment,
            "BATON_OUTBOX_FILE": str(folder / "outbox.sqlite3"),
            "BATON_OUTBOX_DRAIN": "15",
        }

    def save(self, conversation: str, count: int, *, kill_after: int = 0) -> list[str]:
        """Runs a saver to its end and returns what it said was durable."""
        argv = [sys.executable, str(SAVER), self.named(conversation), str(count), str(kill_after)]
        argv += [self.redis_url] if self.redis_url else []
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == (-9 if kill_after else 0), done.stderr
        return done.stdout.split()

    def named(self, conversation: str) -> str:
        """The forms share the backend: each has conversations of its own."""
        return f"{conversation}-{'stream' if self.redis_url else 'file'}"

    async def said(self, conversation: str) -> list[str]:
        """What the backend has of a conversation, in its order."""
        headers = {"Authorization": f"Bearer {self.backend.token}"}
        async with httpx.AsyncClient(base_url=self.backend.url, headers=headers) as client:
            answer = await client.get(f"/v1/conversations/{self.named(conversation)}/messages", params={"limit": 200})
        return [message["text"] for message in answer.json()["items"]] if answer.status_code == 200 else []

    async def drained(self) -> None:
        """A later process opens the outbox, and delivers what it finds."""
        settings = PersistenceSettings(
            backend_url=self.environment["BATON_BACKEND_URL"],
            backend_token=self.environment["BATON_BACKEND_TOKEN"],
            outbox_file=Path(self.environment["BATON_OUTBOX_FILE"]),
        )
        async with BackendClient.open(settings, redis_url=self.redis_url) as client, asyncio.timeout(60):
            assert client.outbox is not None
            while (await client.outbox.statistics()).waiting:
                await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def backend() -> Iterator[BackendServer]:
    with BackendServer() as server:
        yield server


@pytest.fixture(params=["file", "stream"])
def scene(
    request: pytest.FixtureRequest,
    backend: BackendServer,
    valkey: EmbeddedValkey,
    store: Store,
    tmp_path: Path,
) -> Scene:
    return Scene(backend, tmp_path, valkey.url if request.param == "stream" else None)


async def test_sigkill_behind_a_save_loses_nothing_and_a_killed_backend_doubles_nothing(scene: Scene) -> None:
    first = await asyncio.to_thread(scene.save, "one", 20)
    scene.backend.kill()
    while_away = await asyncio.to_thread(scene.save, "two", 100, kill_after=25)
    await scene.backend.start()
    killed = await asyncio.to_thread(scene.save, "three", 100, kill_after=30)

    await scene.drained()

    assert (len(first), len(while_away), len(killed)) == (20, 25, 30)
    assert await scene.said("one") == first
    assert await scene.said("two") == while_away
    assert await scene.said("three") == killed


async def test_a_backend_that_is_killed_again_and_again_has_each_turn_once(scene: Scene) -> None:
    saving = asyncio.create_task(asyncio.to_thread(scene.save, "long", 120))
    for _ in range(2):
        await asyncio.sleep(0.4)
        scene.backend.kill()
        await scene.backend.start()
    said = await saving

    await scene.drained()

    assert len(said) == 120
    assert await scene.said("long") == said


async def test_a_user_who_was_erased_is_not_brought_back_by_the_outbox(scene: Scene) -> None:
    await asyncio.to_thread(scene.save, "ours", 3)
    scene.backend.kill()
    await asyncio.to_thread(scene.save, "ours", 100, kill_after=5)
    await scene.backend.start()
    headers = {"Authorization": f"Bearer {scene.backend.token}"}
    async with httpx.AsyncClient(base_url=scene.backend.url, headers=headers) as client:
        assert (await client.delete("/v1/users/ann")).status_code == 200
        try:
            await scene.drained()

            assert await scene.said("ours") == []
        finally:
            await client.put("/v1/users/ann", json={})  # welcome again, for the other tests
