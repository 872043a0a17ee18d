"""One room as one process sees it: the parts, and the two channels that they share."""

from __future__ import annotations

from datetime import timedelta

from coordination.handoff.protocol import Handoffs
from coordination.ids import RoomName, Tenant
from coordination.leases.engine import LeaseEngine
from coordination.ports import Silencer
from coordination.room.changes import Changes
from coordination.room.context import SharedContext
from coordination.room.events import Events
from coordination.room.floor import Floor
from coordination.room.roster import Roster
from coordination.room.turns import TurnLog


class Room:
    """What several agents share in one room. Nothing is subscribed or written before a part is used."""

    def __init__(
        self,
        engine: LeaseEngine,
        name: RoomName,
        tenant: Tenant,
        *,
        silencer: Silencer | None,
        floor_ttl: timedelta,
        keep: bool,
    ) -> None:
        store = engine.store
        keys = store.keys.room(name, tenant)
        self.name, self.tenant = name, tenant
        self._changes = Changes(store.subscriber, keys.everyone, also=lambda: engine.listen(keys.floor))
        self.floor = Floor(engine, keys, self._changes, name=name, silencer=silencer, ttl=floor_ttl, keep=keep)
        self.roster = Roster(store, keys, engine.process, self._changes)
        self.context = SharedContext(store, keys, self._changes, name=name)
        self.turns = TurnLog(store, keys, self._changes, name=name)
        self.events = Events(store, keys)
        self.handoffs = Handoffs(engine, keys, self._changes, self.floor)

    async def close(self) -> None:
        """Leaves: memberships end, leases are given back, channels are unsubscribed. What is shared stays."""
        await self.roster.close()
        await self.floor.close()
        await self._changes.close()
