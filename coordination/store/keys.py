"""The catalogue of keys and channels: nothing else in the library formats one.

A key is `<prefix>:<format version>:{<hash tag>}:<what>`. The hash tag puts all keys of a room on one slot, so that
each script touches one slot and runs unchanged on a single server, under Sentinel and in a Cluster.

Lifetime: every key has a TTL. A key of a room lives `ROOM_TTL` beyond its last heartbeat, renewal or write, so nothing
of a room is left a minute after it ended. Permanent by design are the keys of undelivered outbox items (`OutboxKeys`),
which end when the items are delivered, and what operators decided on limits (`LimitControlKeys`), and no others.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Final

from coordination.ids import ProcessId, RoomName, Tenant, WorkerId, check_name

FORMAT: Final = 1
"""Version of all keys and messages. Two adjacent releases run side by side; see docs/decisions/formats.md."""

ROOM_TTL: Final = timedelta(seconds=55)
"""How long a room's keys outlive the last sign of life: under a minute, and longer than an outage of Redis that calls
are expected to survive (30 s)."""

UNATTENDED_TTL: Final = timedelta(hours=1)
"""How long context, turns and events last that were written into a room where no agent keeps a roster entry."""

CALLS_TTL: Final = timedelta(days=1)
"""How long it is known, after the newest one has begun, which calls are being saved."""

FLEET_TTL: Final = timedelta(minutes=10)
"""How long the registry of the fleet outlives its last worker: a fleet whose workers all died at once is started again
by its supervisor within that, and then takes up the calls that were left."""

LOCK_TAGS: Final = 16
"""Locks hash to this many tags: a process that uses any number of locks subscribes to at most so many channels."""


@dataclass(frozen=True, kw_only=True)
class LeaseKeys:
    """The keys of one leased resource, all on one slot.

    lease      hash: last fence, current holder, its deadline, provisional window, number of waiters
    queue      sorted set: waiting requests, score = -priority, members ordered by arrival
    waiters    hash: request id -> what a grant needs to know of the waiter (JSON)
    cancelled  sorted set: cancelled request ids, score = when they may be forgotten; lives 10 s
    events     stream that grants and releases are recorded in, or the empty string
    channel    prefix of the channels of the processes; `<channel><process id>`
    everyone   channel on which every change is told, or the empty string
    """

    lease: str
    queue: str
    waiters: str
    cancelled: str
    events: str
    channel: str
    everyone: str

    @classmethod
    def under(cls, lease: str, *, channel: str, events: str = "", everyone: str = "") -> LeaseKeys:
        """The keys of the resource whose lease is kept in `lease`."""
        return cls(
            lease=lease,
            queue=f"{lease}:queue",
            waiters=f"{lease}:waiters",
            cancelled=f"{lease}:cancelled",
            events=events,
            channel=channel,
            everyone=everyone,
        )

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """KEYS of every lease script, in their order; a lease without events repeats its own key there."""
        return (self.lease, self.queue, self.waiters, self.cancelled, self.events or self.lease)


@dataclass(frozen=True, kw_only=True)
class RoomKeys:
    """The keys of one room; `base` ends with the hash tag and a colon."""

    base: str

    @cached_property
    def floor(self) -> LeaseKeys:
        return LeaseKeys.under(f"{self.base}floor", channel=self.channel, events=self.events, everyone=self.everyone)

    @property
    def roster(self) -> str:
        """hash: agent id -> member (JSON)"""
        return f"{self.base}roster"

    @property
    def beats(self) -> str:
        """sorted set: agent id, score = server time of its last heartbeat in microseconds"""
        return f"{self.base}roster:beats"

    @property
    def context(self) -> str:
        """hash: version, document (JSON text)"""
        return f"{self.base}context"

    @property
    def turns(self) -> str:
        """hash: turn id -> turn (JSON)"""
        return f"{self.base}turns"

    @property
    def turn_order(self) -> str:
        """sorted set, all scores 0: turn ids, `<fence>-<sequence>` zero-padded, so that they sort as they were said"""
        return f"{self.base}turns:order"

    @property
    def events(self) -> str:
        """stream, capped: joins, grants, releases, handoffs … without any transcript text"""
        return f"{self.base}events"

    @property
    def handoff(self) -> str:
        """hash: the open handoff, or the last one"""
        return f"{self.base}handoff"

    @property
    def channel(self) -> str:
        """prefix of the channels of the processes in this room: grants, revocations and pings for one process"""
        return f"{self.base}p:"

    @property
    def everyone(self) -> str:
        """channel on which changes of floor, roster, context, turns and handoffs are told to all processes"""
        return f"{self.base}all"

    def of_process(self, process: ProcessId) -> str:
        return f"{self.channel}{process}"

    @property
    def all(self) -> tuple[str, ...]:
        """Every key that a room can have: what a heartbeat keeps alive and the end of the room removes."""
        floor = self.floor
        return (
            floor.lease,
            floor.queue,
            floor.waiters,
            floor.cancelled,
            self.roster,
            self.beats,
            self.context,
            self.turns,
            self.turn_order,
            self.events,
            self.handoff,
        )


@dataclass(frozen=True, kw_only=True)
class LimitKeys:
    """The keys of one provider's limits, all on one slot; `base` ends with the hash tag and a colon.

    own      hash: all buckets (`<limit>/<name>` -> theoretical arrival time in us; a tenant's parts of a limit are
             `/guarantee/<limit>/<tenant>` and `/ceiling/…`); while somebody waits also n (how many), pump (the process
             that admits), due (when it looks next)
    waiters  hash: request id -> what an admission needs to know of it
    tenants  sorted set: tenants that wait, score = start tag
    granted  sorted set: requests that were pushed, score = moment of the admission; the last 30 s of them
    fair     hash: start tag of the last admission, and each tenant's finish tag; gone when nobody waits
    beats    sorted set: processes that use the provider, score = server time of their last sign of life
    usage    prefix of hashes: what was used in one minute, by tenant; an hour each

    Further keys that scripts build behind `base`: `q:<tenant>` (sorted set: a tenant's queue, score = -priority),
    `s:<limit>/<name>` (sorted set: slots that are held, score = when they end unless renewed), `p:<process>` (channel).
    """

    base: str

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """KEYS of every limits script, in their order."""
        b = self.base
        return (f"{b}provider", f"{b}waiters", f"{b}tenants", f"{b}granted", f"{b}fair")

    @property
    def beats(self) -> str:
        return f"{self.base}beats"

    @property
    def usage(self) -> str:
        return f"{self.base}usage:"

    def channel(self, process: ProcessId) -> str:
        return f"{self.base}p:{process}"


@dataclass(frozen=True, kw_only=True)
class FleetKeys:
    """The registry of all workers under one prefix, on one slot; `base` ends with the hash tag and a colon.

    Each lives `FLEET_TTL` beyond the last heartbeat of any worker or agent.
    """

    base: str

    @property
    def workers(self) -> str:
        """sorted set: worker id, score = server time of its main process's last heartbeat in microseconds"""
        return f"{self.base}workers"

    @property
    def agents(self) -> str:
        """hash: agent id -> where it is: worker, process, tenant, room, role, identity (JSON)"""
        return f"{self.base}agents"

    @property
    def beats(self) -> str:
        """sorted set: agent id, score = server time of its own last heartbeat in microseconds"""
        return f"{self.base}agents:beats"

    @property
    def recoveries(self) -> str:
        """hash: id of a lost agent -> who replaces it, until when, and whether one was dispatched (JSON)"""
        return f"{self.base}recoveries"

    @property
    def all(self) -> tuple[str, ...]:
        return (self.workers, self.agents, self.beats, self.recoveries)

    def of_worker(self, worker: WorkerId) -> str:
        """channel of a worker's main process: as long as it is subscribed, the worker lives; commands to it"""
        return f"{self.base}w:{worker}"

    def post(self, name: str) -> LeaseKeys:
        """The lease of a post that one worker of the fleet fills: `watcher`, `deputy`."""
        return LeaseKeys.under(f"{self.base}{name}", channel=f"{self.base}p:")


@dataclass(frozen=True, kw_only=True)
class OutboxKeys:
    """The keys of one tenant's outbox, all on one slot. No TTL, but for `calls` and `erasures`: they hold what was
    promised not to be lost.

    Each goes with the last item in it, so an outbox that is drained leaves nothing.
    """

    base: str

    @property
    def items(self) -> str:
        """prefix of one stream per conversation: its undelivered items, in order; `<items><conversation>`"""
        return f"{self.base}c:"

    @property
    def due(self) -> str:
        """sorted set: conversations with undelivered items, score = server time when one may be claimed"""
        return f"{self.base}due"

    @property
    def claims(self) -> str:
        """hash: conversation -> token of the drainer that has it, and how often it was tried in vain"""
        return f"{self.base}claims"

    @property
    def set_aside(self) -> str:
        """stream: items that the backend does not take, each with the reason, until they are replayed"""
        return f"{self.base}set-aside"

    @property
    def calls(self) -> str:
        """hash: what Redis knows a call by -> the call that is being saved (JSON); lives `CALLS_TTL` after the last"""
        return f"{self.base}calls"

    @property
    def erasures(self) -> str:
        """string: how far the backend's erasures were carried out; lives `CALLS_TTL` after the last look"""
        return f"{self.base}erasures"


_PERMANENT: Final = re.compile(r"\{outbox/[^}]*\}:(c:.*|due|claims|set-aside)|\{limits\}:(overrides|blocked)")
"""What follows the root in a key that has no TTL by design."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitControlKeys:
    """What operators decided, for all providers. The two hashes are permanent: they outlive every worker.

    overrides  hash: `<provider>/<limit>` -> what is set at run time (JSON)
    blocked    hash: tenant -> why
    channel    on which changes are told to all processes
    """

    overrides: str
    blocked: str
    channel: str

    @property
    def permanent(self) -> tuple[str, ...]:
        return (self.overrides, self.blocked)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Builds every key under one prefix."""

    prefix: str = "baton"

    def __post_init__(self) -> None:
        check_name(self.prefix, "key prefix")

    @property
    def root(self) -> str:
        return f"{self.prefix}:{FORMAT}:"

    def room(self, room: RoomName, tenant: Tenant) -> RoomKeys:
        check_name(tenant, "tenant")
        if "/" in tenant:
            # The tag is `tenant/room`: a slash in the tenant would let two pairs meet in one key.
            check_name("", "tenant without a slash")
        return RoomKeys(base=f"{self.root}{{{tenant}/{check_name(room, 'room')}}}:")

    @lru_cache(maxsize=1024)  # noqa: B019 - a catalogue is one small value for the whole process
    def lock(self, resource: str) -> LeaseKeys:
        check_name(resource, "lock")
        base = f"{self.root}{self.lock_tag(resource)}:"
        return LeaseKeys.under(f"{base}lock:{resource}", channel=f"{base}p:")

    def lock_tag(self, resource: str) -> str:
        return f"{{locks/{zlib.crc32(resource.encode()) % LOCK_TAGS}}}"

    def fleet(self) -> FleetKeys:
        return FleetKeys(base=f"{self.root}{{fleet}}:")

    def context(self, scope: str) -> RoomKeys:
        """Keys of a context that is no room's, such as `user:42`: only `context` and `everyone` of them are used."""
        return RoomKeys(base=f"{self.root}{{scope/{check_name(scope, 'context scope')}}}:")

    @lru_cache(maxsize=1024)  # noqa: B019 - as above
    def limits(self, provider: str) -> LimitKeys:
        return LimitKeys(base=f"{self.root}{{limits/{check_name(provider, 'provider')}}}:")

    def outbox(self, tenant: Tenant) -> OutboxKeys:
        """Keys of a tenant's outbox; without a TTL, see `OutboxKeys`."""
        return OutboxKeys(base=f"{self.root}{{outbox/{check_name(tenant, 'tenant')}}}:")

    def is_permanent(self, key: str) -> bool:
        """Whether a key has no TTL by design."""
        return key.startswith(self.root) and _PERMANENT.fullmatch(key.removeprefix(self.root)) is not None

    @property
    def limit_control(self) -> LimitControlKeys:
        base = f"{self.root}{{limits}}:"
        return LimitControlKeys(overrides=f"{base}overrides", blocked=f"{base}blocked", channel=f"{base}all")
