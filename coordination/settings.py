"""Typed settings of the library, from arguments or from the environment (prefix `BATON_`)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordination.errors import InvalidSettings


def _seconds(value: object) -> object:
    """In the environment a duration is a number of seconds; pydantic alone would want ISO 8601."""
    if isinstance(value, str):
        try:
            return timedelta(seconds=float(value))
        except (ValueError, OverflowError):
            return value
    return value


Seconds = Annotated[timedelta, BeforeValidator(_seconds)]


class CoordinatorSettings(BaseSettings):
    """What a process needs to know to coordinate with others. Every field is also `BATON_<NAME>` in the environment.

    Durations are seconds in the environment.
    """

    model_config = SettingsConfigDict(env_prefix="BATON_", env_ignore_empty=True, extra="ignore", frozen=True)

    coordination: Literal["on", "off"] = "on"
    """`off`: one agent per room, a plain AgentSession, no Redis at all. Said explicitly, never guessed."""
    redis_url: str | None = None
    """redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; see docs/reference/settings.md."""
    prefix: str = Field(default="baton", min_length=1, max_length=64)
    """First part of every key; two installations that share a database need two prefixes."""
    allow_eviction: bool = False
    """Accept a server that may evict keys under memory pressure, leases included."""
    acknowledge_replicas: int = Field(default=0, ge=0, le=16)
    """A grant is used only when so many replicas have confirmed that they know of it (WAIT). With too few of them for
    half a second it is given back: nobody is granted anything then."""
    limits_file: Path | None = None
    """The limits of providers (YAML); looked at again when it changes."""
    tenants_file: Path | None = None
    """Tenants and their plans (YAML); looked at again when it changes."""
    tenant: str | None = None
    """The tenant of all calls of this worker. Unset: what dispatch or room metadata say."""
    floor_ttl: Seconds = Field(default=timedelta(seconds=2), ge=timedelta(milliseconds=300), le=timedelta(minutes=1))
    """How long the floor outlives its holder's last renewal."""
    keep_floor: bool = True
    """A holder that cannot reach Redis goes on speaking while it is in the room (policy `keep`); False: `silence`."""
    caller_grace: Seconds = Field(default=timedelta(seconds=10), ge=timedelta(0))
    """How long a call outlives its last caller."""
    handoff_deadline: Seconds = Field(default=timedelta(seconds=10), gt=timedelta(0))
    """Offer to ready: after that a handoff is given up."""
    turn_boundary: Seconds = Field(default=timedelta(seconds=8), gt=timedelta(0))
    """Ready to commit: how long a handoff waits for nobody to speak."""
    utterance_limit: Seconds = Field(default=timedelta(seconds=20), gt=timedelta(0))
    """How long an utterance that began before a swap may take to reach the one that answers it."""

    takeover: bool = True
    """Whether this worker takes part in the watch over the fleet, so that calls of lost agents are taken up."""
    hang_limit: Seconds = Field(default=timedelta(seconds=5), ge=timedelta(seconds=4))
    """An agent whose event loop has been blocked for so long is replaced. More than two of its heartbeats."""
    fallback_roles: dict[str, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]])
    """By role: which roles may continue its calls, best first; `*` for the roles that are not named. JSON in the
    environment: {"billing": ["receptionist"]}"""
    takeover_within: Seconds = Field(default=timedelta(seconds=3), gt=timedelta(0))
    """How long a dispatched replacement may take to the floor before another one is sent for; grows with each."""
    takeover_dispatches: int = Field(default=4, ge=1, le=20)
    """How often a replacement is sent for before a call is given up."""
    takeovers_per_room: int = Field(default=5, ge=1)
    """Replacements in one room within ten minutes; after that it is left alone."""
    apologise_after: Seconds = Field(default=timedelta(seconds=4), ge=timedelta(0))
    """An agent that takes up a call after a longer silence begins with a word of apology."""
    apology: str = Field(default="Sorry for the pause.", max_length=200)
    """That word, where no model is needed to say it. Empty: none."""
    start_without_redis: bool = True
    """A call that begins while Redis is away is served by its agent alone, with a warning; False: the job ends."""

    def __init__(self, **values: Any) -> None:
        """Raises `InvalidSettings`, which lists all faults with the variable that each is in."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = [
                f"{'.'.join(str(part) for part in fault['loc'])} (BATON_{str(fault['loc'][0]).upper()}): {fault['msg']}"
                for fault in error.errors()
            ]
            raise InvalidSettings("The settings have faults: " + "; ".join(faults) + ".") from error

    def require_redis_url(self) -> str:
        """The URL. Raises `InvalidSettings` if there is none."""
        if not self.redis_url:
            raise InvalidSettings(
                "No Redis is configured: set BATON_REDIS_URL, e.g. redis://localhost:6379. "
                'An application with one agent per room needs none: BATON_COORDINATION=off or coordination="off".'
            )
        return self.redis_url
