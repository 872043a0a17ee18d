"""Who listens on a channel: what a watcher asks the server."""

from __future__ import annotations

from coordination.store import Store


async def test_channels_are_counted_by_the_server_and_a_channel_without_listeners_is_zero(store: Store):
    first, second = "baton:1:{subscribers}:p:a", "baton:1:{subscribers}:p:b"
    await store.subscriber.subscribe(first, lambda _: None)

    assert await store.subscribers([first, second]) == {first: 1, second: 0}
    assert await store.subscribers([]) == {}
