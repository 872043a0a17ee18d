"""Fixtures for tests in real rooms of a real livekit-server.

`livekit_server`   session: one server process for all tests of the run (see `tests.rooms.rig.LiveKitServer`:
                   `.url`, `.environment`, `.token(room, identity, kind=...)`, `.client()`). Don't stop it:
                   a test that needs an outage takes `own_livekit_server`, a process of its own.
`livekit_api`      an API client of that server (function scope; closed afterwards).
`make_room`        factory: `room = await make_room(name=None, metadata="")` gives a `LiveRoom` with `.name`,
                   `.sid`, `.api`, `await room.join(identity, kind="standard" | "agent", **attributes)`
                   (an `rtc.Room`, disconnected at the end), `await room.identities()`, `.metadata()`.
`listen`           factory: `ears = await listen(room, identity="caller")` joins and records what arrives, per
                   track, in 10 ms frames with arrival times (`tests.rooms.ears.Listener`):
                   `.first_audible(agent)`, `.last_audible(agent)`, `.seconds(agent)`, `.hears(agent)`;
                   `eventually(...)` is there too.

Example::

    async def test_it_is_heard(make_room, listen):
        room = await make_room()
        ears = await listen(room)
        agent = await room.join("agent-A", kind="agent")
        ...
        await eventually(lambda: ears.hears("agent-A"), "the agent is heard")

A missing livekit-server fails the tests with the command that installs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from livekit import api

from coordination.dev.valkey import EmbeddedValkey
from tests.rooms.ears import Listener, listening
from tests.rooms.rig import LiveKitServer, LiveRoom, RoomFactory, create_room

ListenerFactory = Callable[..., Awaitable[Listener]]


@pytest.fixture(scope="session")
def livekit_server() -> Iterator[LiveKitServer]:
    """The server that all tests share; ended after the last one."""
    with LiveKitServer() as server:
        yield server


@pytest.fixture
def own_livekit_server() -> Iterator[LiveKitServer]:
    """A server for one test, which may kill it and start it again on the same ports."""
    with LiveKitServer() as server:
        yield server


@pytest.fixture
async def livekit_api(livekit_server: LiveKitServer) -> AsyncIterator[api.LiveKitAPI]:
    client = livekit_server.client()
    yield client
    await client.aclose()


@pytest.fixture
async def make_room(livekit_server: LiveKitServer, livekit_api: api.LiveKitAPI) -> AsyncIterator[RoomFactory]:
    """Factory of rooms. At the end of the test all who joined through it leave, and the rooms are deleted."""
    rooms: list[LiveRoom] = []

    async def make(*, name: str | None = None, metadata: str = "") -> LiveRoom:
        room = await create_room(livekit_server, livekit_api, name=name, metadata=metadata)
        rooms.append(room)
        return room

    yield make
    for room in rooms:
        await room.close()
        try:
            await livekit_api.room.delete_room(api.DeleteRoomRequest(room=room.name))
        except api.TwirpError as refusal:
            if refusal.code != api.TwirpErrorCode.NOT_FOUND:
                raise


@pytest.fixture
async def listen(make_room: RoomFactory) -> AsyncIterator[ListenerFactory]:
    """Factory of listeners; see the module's docstring. Torn down before the rooms are."""
    async with AsyncExitStack() as stack:

        async def start(room: LiveRoom, *, identity: str = "caller") -> Listener:
            return await stack.enter_async_context(listening(await room.join(identity)))

        yield start


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of an embedded Valkey that the tests of this folder share; every room has keys of its own."""
    with EmbeddedValkey() as server:
        yield server.url


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A Redis of one test's own, to be stopped, and to come back with its data or without."""
    async with EmbeddedValkey(directory=tmp_path) as server:
        yield server
