"""Redis or Valkey: reachable, fit, allowed to do what Baton needs, and large enough."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from statistics import median
from typing import Any

from coordination.dev.checks.finding import Finding, fault, ok, warning
from coordination.errors import InvalidSettings, StoreError, StoreRefused, StoreUnavailable
from coordination.store.store import Store

CONNECTIONS_PER_AGENT = 2
CONNECTIONS_PER_WORKER = 3
_RESERVE = 32
"""Connections left for monitoring and for people."""
_SMALL = 100
"""Agents in calls at once; a server that has room for fewer is likely to have been left at a small default."""
_SLOW = timedelta(milliseconds=5)
"""A round trip as long as this costs more than everything Baton does in a hand-over."""
_SKEW = timedelta(seconds=60)
_LOOK_AT = 5000
"""Keys; enough to see a habit without going through a large database."""


async def check_redis(url: str | None, *, prefix: str = "baton") -> list[Finding]:
    """Findings about the server at `url`. Writes nothing but one message to a channel of its own."""
    if not url:
        return [
            warning(
                "Redis",
                "no address is configured (BATON_REDIS_URL)",
                "`baton dev` starts a Valkey of its own; in production set BATON_REDIS_URL.",
            )
        ]
    try:
        store = Store(url, prefix=prefix, allow_eviction=True)
        await store.open()
    except InvalidSettings as wrong:
        return [fault("Redis", str(wrong), "Correct BATON_REDIS_URL.")]
    except StoreUnavailable as away:
        return [fault("Redis", str(away), "Start it, or correct BATON_REDIS_URL; look at firewalls in between.")]
    except StoreRefused as refused:
        return [fault("Redis", str(refused), "Correct the server's configuration or BATON_REDIS_URL.")]
    try:
        return [finding async for finding in _checks(store)]
    except StoreError as broken:
        return [fault("Redis", str(broken), "Look at the server's own log.")]
    finally:
        await store.close()


async def _checks(store: Store) -> AsyncIterator[Finding]:
    info = await _info(store)
    yield _server(store, info)
    yield await _round_trip(store)
    yield await _eviction(store)
    yield await _rights(store)
    yield await _connections(store, info)
    yield await _clock(store)
    yield await _leftovers(store)


async def _info(store: Store) -> dict[str, str]:
    try:
        text = _text(await store.command("INFO"))
    except StoreRefused:
        return {}
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _server(store: Store, info: dict[str, str]) -> Finding:
    if not info:
        return warning(
            "Redis", f"answers at {store.label}, but not to INFO", "Make sure it is Redis 7.0 or later, or Valkey."
        )
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version')}"
    return ok("Redis", f"is {name} at {store.label}")


async def _round_trip(store: Store) -> Finding:
    times: list[float] = []
    for _ in range(10):
        started = time.perf_counter()
        await store.command("PING")
        times.append(time.perf_counter() - started)
    milliseconds = median(times) * 1000
    text = f"takes {milliseconds:.2f} ms"
    if milliseconds > _SLOW.total_seconds() * 1000:
        return warning("round trip", text, "Put Redis and the workers into the same zone.")
    return ok("round trip", text)


async def _eviction(store: Store) -> Finding:
    """Of every primary: in a Cluster one that was set up differently is enough to lose leases."""
    answers = await store.topology.inquire(("CONFIG", "GET", "maxmemory-policy"))
    policies = {label: _text(reply[1]) for label, (reply,) in answers.items() if isinstance(reply, list) and reply}
    evicting = {label: policy for label, policy in policies.items() if policy != "noeviction"}
    if len(policies) < len(answers):
        return warning(
            "eviction", "the server does not tell its policy", "Make sure that its maxmemory-policy is noeviction."
        )
    if evicting:
        where = f" at {', '.join(evicting)}" if len(answers) > 1 else ""
        named = ", ".join(sorted(set(evicting.values())))
        return fault(
            "eviction",
            f"maxmemory-policy is {named}{where}: under pressure leases are evicted",
            "CONFIG SET maxmemory-policy noeviction, or a database of its own.",
        )
    return ok("eviction", "maxmemory-policy is noeviction")


async def _rights(store: Store) -> Finding:
    channel = f"{store.keys.root}{{doctor}}:"
    attempts = {
        "EVAL": ("EVAL", "#!lua\nreturn redis.call('GET', KEYS[1])", 1, f"{channel}probe"),
        "SPUBLISH": ("SPUBLISH", f"{channel}probe", "probe"),
        "TIME": ("TIME",),
    }
    refused: list[str] = []
    for name, command in attempts.items():
        try:
            await store.command(*command)
        except StoreRefused as answer:
            refused.append(f"{name} ({answer.__cause__ or answer})")
    if refused:
        return fault(
            "rights",
            f"the server refuses {', '.join(refused)}",
            "Give the user the ACL rules of docs/how-to/secure-redis.md.",
        )
    return ok("rights", "scripts, sharded channels and keys can be used")


async def _connections(store: Store, info: dict[str, str]) -> Finding:
    limit = await _setting(store, "maxclients") or info.get("maxclients")
    if limit is None or not limit.isdigit():
        return warning(
            "connections",
            "the server does not tell its limit",
            f"It must allow {CONNECTIONS_PER_AGENT} per agent in a call and {CONNECTIONS_PER_WORKER} per worker.",
        )
    used = int(info.get("connected_clients", "0"))
    agents = max(0, (int(limit) - used - _RESERVE) // CONNECTIONS_PER_AGENT)
    text = (
        f"{used} of {limit} are in use; the rest is enough for {agents} agents in calls, "
        f"less {CONNECTIONS_PER_WORKER / CONNECTIONS_PER_AGENT:g} for each worker"
    )
    if agents < _SMALL:
        return warning("connections", text, "Raise maxclients (and the server's limit of open files).")
    return ok("connections", text)


async def _clock(store: Store) -> Finding:
    try:
        seconds, micros = await store.command("TIME")
    except StoreRefused:
        return warning("clock", "the server does not tell its time", "Allow the command TIME.")
    skew = abs(int(seconds) + int(micros) / 1e6 - time.time())
    text = f"differs from this machine's by {skew:.3f} s"
    if skew > _SKEW.total_seconds():
        return warning("clock", text, "Synchronise the clocks (NTP): fences are made of the server's.")
    return ok("clock", text)


async def _leftovers(store: Store) -> Finding:
    """Looks for keys of ours that would never go away. Everything that Baton writes has a TTL."""
    cursor, seen, forever = b"0", 0, list[str]()
    while seen < _LOOK_AT:
        try:
            cursor, keys = await store.command("SCAN", cursor, "MATCH", f"{store.keys.root}*", "COUNT", 500)
        except StoreRefused:
            return ok("leftovers", "cannot be looked for: SCAN is not allowed")
        for key in keys:
            seen += 1
            if await store.command("TTL", key) == -1:
                forever.append(_text(key))
        if _text(cursor) == "0":
            break
    if forever:
        shown = ", ".join(forever[:3])
        return warning(
            "leftovers",
            f"{len(forever)} keys without a TTL, such as {shown}",
            "Baton writes no such key: find out who did, then delete them.",
        )
    return ok("leftovers", f"none; {seen} keys, all with a TTL")


async def _setting(store: Store, name: str) -> str | None:
    try:
        answer = await store.command("CONFIG", "GET", name)
    except StoreRefused:
        return None
    return _text(answer[1]) if len(answer) == 2 else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
