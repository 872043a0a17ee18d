"""The only place that speaks Redis (or Valkey): connections, the subscriber, keys, scripts.

Everything above it calls `Store.run` with a `Script` and keys from the catalogue, and receives plain integers,
bytes and lists, or one of this library's errors.
"""

from coordination.store.keys import Catalogue, RoomKeys
from coordination.store.scripts import Script
from coordination.store.store import Store
from coordination.store.subscriber import Subscriptions

__all__ = ["Catalogue", "RoomKeys", "Script", "Store", "Subscriptions"]
