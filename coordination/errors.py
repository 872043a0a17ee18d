"""All errors that Baton raises on purpose: one base, one class a situation.

Each carries its data as attributes and says whether repeating the call can help (`retryable`).
"""

from __future__ import annotations

from collections.abc import Sequence


class CoordinationError(Exception):
    """Base of all errors of this library."""

    retryable: bool = False
    """Whether the same call may succeed later without anything being changed."""


class InvalidName(CoordinationError, ValueError):
    """A name that cannot be used for a room, tenant, role, agent or resource."""

    def __init__(self, what: str, value: object, why: str) -> None:
        self.what, self.value = what, value
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        super().__init__(f"{shown} cannot name a {what}: {why}. Choose a name of 1 to 256 plain characters.")


class InvalidArgument(CoordinationError, ValueError):
    """A value outside of what the call accepts."""


class InvalidSettings(CoordinationError, ValueError):
    """The configuration has faults; the text lists all of them, each with its place."""

    def __init__(self, text: str, faults: Sequence[str] = ()) -> None:
        self.faults = tuple(faults) or (text,)
        """Each by itself."""
        super().__init__(text)


class StoreError(CoordinationError):
    """Redis refused or could not be used."""


class StoreUnavailable(StoreError):
    """Redis did not answer in time or the connection is down."""

    retryable = True


class GrantNotReplicated(StoreUnavailable):
    """Too few replicas confirmed a grant in time: it was given back, and nothing was done under it."""

    def __init__(self, resource: str, wanted: int, confirmed: int, within: float) -> None:
        self.resource, self.wanted, self.confirmed, self.within = resource, wanted, confirmed, within
        super().__init__(
            f"The grant of {resource} was confirmed by {confirmed} of {wanted} replicas within {within:.3g} s: it was "
            "given back. Bring the replicas back, or ask for fewer (acknowledge_replicas, BATON_ACKNOWLEDGE_REPLICAS)."
        )


class StoreRefused(StoreError):
    """Redis answered and refuses: authentication, rights, read-only, out of memory, too old, evicting."""


class UnsupportedFormat(StoreError):
    """A key or message was written by a release whose format this one does not know."""


class LeaseError(CoordinationError):
    """Base of what can happen to a lease."""


class LeaseTimeout(LeaseError, TimeoutError):
    """The resource was not granted within the given time. Nothing of the request is left behind."""

    retryable = True

    def __init__(self, resource: str, waited: float, holder: str | None = None) -> None:
        self.resource, self.waited, self.holder = resource, waited, holder
        held = f"; it is held by {holder!r}" if holder else ""
        super().__init__(
            f"{resource} was not granted within {waited:.3g} s{held}. Wait longer, or ask its holder to let go."
        )


class FloorTimeout(LeaseTimeout):
    """The floor was not granted within the given time."""


class LeaseLost(LeaseError):
    """A lease that an operation relied on is no longer held."""

    def __init__(self, resource: str, fence: int, reason: str) -> None:
        self.resource, self.fence, self.reason = resource, fence, reason
        super().__init__(
            f"The lease on {resource} with fence {fence} is lost ({reason}). "
            "Stop acting for it; ask again if you still need it."
        )


class StaleFence(LeaseError):
    """A write carried a fence that is no longer the resource's current one; nothing was written."""

    def __init__(self, resource: str, fence: int, current: int) -> None:
        self.resource, self.fence, self.current = resource, fence, current
        super().__init__(
            f"The write to {resource} carried fence {fence}, but {current} is current: it was refused. "
            "Another holder owns it now; drop the write."
        )


class RequestCancelled(LeaseError):
    """The request was cancelled before it was served; its id is refused for ten seconds."""


class RoleTaken(CoordinationError):
    """Another live agent already serves the role in this room."""

    def __init__(self, role: str, by: str) -> None:
        self.role, self.by = role, by
        super().__init__(
            f"The role {role!r} is already served in this room by agent {by!r}: leave, or join without a claim."
        )


class ContextConflict(CoordinationError):
    """A compare-and-set found another version than the expected one; nothing was written."""

    retryable = True

    def __init__(self, scope: str, expected: int, current: int) -> None:
        self.scope, self.expected, self.current = scope, expected, current
        super().__init__(
            f"The context of {scope} is at version {current}, not at {expected}: nothing was written. "
            "Read it again and repeat the change."
        )


class ContextTooLarge(CoordinationError, ValueError):
    """The context would exceed its size limit; nothing was written."""


class HandoffError(CoordinationError):
    """Base of what can go wrong with a handoff."""


class HandoffInProgress(HandoffError):
    """The room has an open handoff already; there is at most one at a time."""

    retryable = True

    def __init__(self, handoff: str, to_role: str) -> None:
        self.handoff, self.to_role = handoff, to_role
        super().__init__(f"A handoff to {to_role!r} ({handoff}) is open in this room: wait for it or abort it first.")


class HandoffRefused(HandoffError):
    """The handoff is not in a state that allows the step."""


class HandoffFailed(HandoffError):
    """The handoff was aborted; the old holder keeps the floor. `reason` tells why."""

    def __init__(self, to_role: str, reason: str) -> None:
        self.to_role, self.reason = to_role, reason
        super().__init__(f"The handoff to {to_role!r} came to nothing: {reason}. The floor stays where it was.")


class DispatchFailed(CoordinationError):
    """LiveKit refused a dispatch or did not answer."""

    retryable = True


class LimitError(CoordinationError):
    """Base of what can become of a request for a part of a limit."""


class LimitExceeded(LimitError):
    """A limit refuses the request now. Nothing was charged."""

    retryable = True

    def __init__(self, provider: str, limit: str, tenant: str, retry_after: float) -> None:
        self.provider, self.limit, self.tenant, self.retry_after = provider, limit, tenant, retry_after
        super().__init__(
            f"The limit {limit!r} of {provider} has no room for tenant {tenant!r} now: it passes in {retry_after:.3g} s"
            ". Wait that long, give a timeout to wait in the queue, or use another provider."
        )


class LimitTimeout(LimitError, TimeoutError):
    """The request waited for its whole time and was not admitted. Nothing was charged."""

    retryable = True

    def __init__(self, provider: str, limit: str, tenant: str, waited: float) -> None:
        self.provider, self.limit, self.tenant, self.waited = provider, limit, tenant, waited
        super().__init__(
            f"{provider} had no room for tenant {tenant!r} within {waited:.3g} s; the limit {limit!r} held it up. "
            "Wait longer, raise the limit, or use another provider."
        )


class CostAboveLimit(LimitError, ValueError):
    """The request is larger than a whole limit: it could never pass, however long it waits."""

    def __init__(self, provider: str, limit: str, cost: float, most: float) -> None:
        self.provider, self.limit, self.cost, self.most = provider, limit, cost, most
        super().__init__(
            f"A request for {cost:g} can never pass the limit {limit!r} of {provider}, which is {most:g}: "
            "split the request or raise the limit."
        )


class UnknownProvider(LimitError, LookupError):
    """No limits are configured for the provider, and unknown ones are refused."""

    def __init__(self, provider: str, known: tuple[str, ...]) -> None:
        self.provider, self.known = provider, known
        super().__init__(
            f"No limits are configured for {provider!r} (there are some for: {', '.join(known) or 'none'}): "
            "add it to the limits, or set unknown_providers to allow."
        )


class UnknownTenant(LimitError, LookupError):
    """The tenant is not listed, and unknown ones are refused."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        super().__init__(f"Tenant {tenant!r} is not listed: add it to the tenants, or name a plan for unknown ones.")


class TenantBlocked(LimitError):
    """An operator has blocked the tenant."""

    def __init__(self, tenant: str, reason: str = "") -> None:
        self.tenant, self.reason = tenant, reason
        why = f" ({reason})" if reason else ""
        super().__init__(f"Tenant {tenant!r} is blocked{why}: `baton limits unblock {tenant}` lets it in again.")


class LimitsUnavailable(LimitError):
    """Redis is away, and the limit's policy for that is to let nothing pass."""

    retryable = True

    def __init__(self, provider: str, limit: str) -> None:
        self.provider, self.limit = provider, limit
        super().__init__(
            f"Redis is away, and the limit {limit!r} of {provider} lets nothing pass then (fail_closed). "
            "Bring Redis back, or choose fail_open or local_share for it."
        )
