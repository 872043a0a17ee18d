"""Which workers are dead: a judgement over what is seen of them, without a clock or a connection of its own.

A worker subscribes to a channel of its own; a dead one has no subscription a moment later. That alone proves nothing:
after a restart of Redis, a failover or a killed connection all subscriptions are gone for a moment. So a missing
subscription counts only together with a second sign, no heartbeat since it went missing; a live worker that has
lost its subscription says so at once. And many workers that vanish in one moment mean Redis, not workers: these get
longer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Final

from coordination.ids import WorkerId

GRACE: Final = 0.2
"""Seconds without a subscription before a worker is suspect: a reconnect takes a tenth of that."""
MANY_GRACE: Final = 1.5
"""The same when many vanished together."""
TOGETHER: Final = 1.0
"""Workers that went missing within so many seconds went missing together."""
SILENT_AFTER: Final = 2.0
"""Seconds without a heartbeat after which a worker is suspect although its subscription stands: a host that vanished
closes no socket."""


class Detector:
    """Judges after each look. `now` is any clock that only grows, in seconds."""

    def __init__(self) -> None:
        self._missing: dict[WorkerId, float] = {}

    def observe(
        self,
        now: float,
        *,
        listening: Collection[WorkerId],
        silent: Mapping[WorkerId, timedelta],
        settled: bool,
    ) -> frozenset[WorkerId]:
        """The suspects. `listening` have a subscription; `silent` is the time since the last heartbeat of each worker.

        Nobody is suspected while `settled` is False: the observer was cut off itself a moment ago, and what it sees is
        not yet what there is.
        """
        if not settled:
            self._missing.clear()
            return frozenset()
        for worker in silent:
            if worker in listening:
                self._missing.pop(worker, None)
            else:
                self._missing.setdefault(worker, now)
        for worker in list(self._missing):
            if worker not in silent:
                del self._missing[worker]
        return frozenset(
            worker
            for worker, silence in silent.items()
            if silence.total_seconds() >= SILENT_AFTER or self._is_dead(worker, now, silence, len(silent))
        )

    def _is_dead(self, worker: WorkerId, now: float, silence: timedelta, known: int) -> bool:
        since = self._missing.get(worker)
        if since is None or silence.total_seconds() < now - since:
            return False
        return now - since >= (MANY_GRACE if self._vanished_with_many(since, known) else GRACE)

    def _vanished_with_many(self, since: float, known: int) -> bool:
        together = sum(1 for other in self._missing.values() if abs(other - since) < TOGETHER)
        return together >= 2 and together * 2 >= known
