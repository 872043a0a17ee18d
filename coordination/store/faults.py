"""Translates what the driver and the server say into this library's errors, each with its remedy."""

from __future__ import annotations

from redis import exceptions as redis_errors

from coordination.errors import StoreError, StoreRefused, StoreUnavailable

_REMEDIES: tuple[tuple[str, str], ...] = (
    ("WRONGPASS", "The user name or password in the Redis URL is wrong: correct it."),
    ("invalid username-password", "The user name or password in the Redis URL is wrong: correct it."),
    ("invalid password", "The password in the Redis URL is wrong: correct it."),
    ("NOAUTH", "The server asks for a password: put it into the URL, redis://:PASSWORD@host."),
    (
        "Authentication required",
        "The server asks for a password: put it into the URL, redis://:PASSWORD@host.",
    ),
    ("NOPERM", "The user lacks rights: give it the ACL rules of docs/how-to/secure-redis.md."),
    ("READONLY", "The server is a replica: connect to the primary."),
    ("read only replica", "The server is a replica: connect to the primary."),
    ("OOM", "The server is out of memory and refuses writes: give it more, or find what fills it."),
    ("used memory >", "The server is out of memory and refuses writes: give it more, or find what fills it."),
    ("NOREPLICAS", "The primary has too few replicas (min-replicas-to-write): bring them back."),
    ("MISCONF", "The server cannot save its data and refuses writes: look at its log and its disk."),
    ("CLUSTERDOWN", "The cluster is down: look at CLUSTER INFO."),
    (
        "max number of clients",
        "The server is at maxclients: raise it (two connections an agent, three a worker).",
    ),
)


def refused(error: Exception, where: str) -> StoreError:
    """The error of this library for an error reply, with what to do about it."""
    text = str(error)
    for mark, remedy in _REMEDIES:
        if mark.lower() in text.lower() or mark.lower() in type(error).__name__.lower():
            return StoreRefused(f"Redis at {where} refuses: {text}. {remedy}")
    return StoreRefused(f"Redis at {where} refuses: {text}")


def unavailable(error: BaseException | str, where: str) -> StoreUnavailable:
    """The error for a connection that is down or silent."""
    if isinstance(error, StoreUnavailable):
        return StoreUnavailable(*error.args)
    text = str(error).rstrip(".") or type(error).__name__
    return StoreUnavailable(f"Redis at {where} cannot be used now: {text}. Check that it runs and can be reached.")


def given_up(error: Exception, where: str) -> StoreUnavailable:
    """The error for a refusal that should have passed (a failover, a slot on its way) and did not in time."""
    return StoreUnavailable(f"{refused(error, where)} It has not passed within the time of the call.")


def on_connect(error: BaseException, where: str) -> StoreError:
    """The error for a failed connect: a refusal that will not pass by itself, or an outage that may."""
    if isinstance(error, redis_errors.AuthenticationError | redis_errors.ResponseError):
        return refused(error, where)
    return unavailable(error, where)
