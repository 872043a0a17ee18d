"""Typed settings of the backend, from arguments or from the environment (prefix `BACKEND_`)."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from backend.errors import InvalidSettings

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


class BackendSettings(BaseSettings):
    """What the service needs to know. Every field is also `BACKEND_<NAME>` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="BACKEND_", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    database_url: str = "sqlite:///baton-backend.db"
    """sqlite:///file.db, or postgresql://user:password@host/name; a bare path is a SQLite file."""
    bootstrap_token: SecretStr | None = None
    """`tenant:bt_…`: a token that is admitted at the start, for stacks whose parts get their secrets from outside."""
    pool_size: int = Field(default=10, ge=1, le=200)
    """Connections to PostgreSQL that one process keeps."""
    max_body: int = Field(default=1024 * 1024, ge=1024)
    """Bytes of a request's body; larger ones are refused with status 413."""
    retention_days: int = Field(default=0, ge=0)
    """Conversations, sessions and events older than this are deleted; 0 keeps them."""
    idempotency_days: int = Field(default=30, ge=1)
    """How long the answer to an Idempotency-Key is remembered. Longer than any outbox may hold an item back."""
    prune_hours: float = Field(default=1, ge=0)
    """How often the service deletes what is past its retention; 0 leaves it to `python -m backend prune`."""
    webhook_attempts: int = Field(default=5, ge=1, le=20)
    """Tries of one delivery, with growing pauses, before the event is set aside as failed."""
    webhook_timeout: float = Field(default=5, gt=0, le=60)
    """Seconds that a receiver has for its answer."""
    webhook_private: bool = False
    """Also deliver to private and loopback addresses, and over http. For development only: a tenant who may name
    such an address can reach into the network of the backend."""
    livekit_url: str | None = Field(default=None, validation_alias="LIVEKIT_URL")
    livekit_api_key: str | None = Field(default=None, validation_alias="LIVEKIT_API_KEY")
    livekit_api_secret: SecretStr | None = Field(default=None, validation_alias="LIVEKIT_API_SECRET")

    def __init__(self, **values: Any) -> None:
        """Raises `InvalidSettings`, which lists all faults with the variable that each is in."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = [f"{_variable(str(fault['loc'][0]))}: {fault['msg']}" for fault in error.errors()]
            raise InvalidSettings("The settings of the backend have faults: " + "; ".join(faults) + ".") from error
        self.engine_url  # noqa: B018  # a URL that cannot be read is found now, not at the first request

    @property
    def engine_url(self) -> URL:
        """The database's URL with an asynchronous driver. Raises `InvalidSettings` for one that cannot be used."""
        text = self.database_url
        try:
            url = make_url(text if "://" in text else f"sqlite:///{text}")
        except ArgumentError as error:
            raise InvalidSettings(
                "BACKEND_DATABASE_URL cannot be read: write sqlite:///file.db or postgresql://user:password@host/name."
            ) from error
        driver = _DRIVERS.get(url.drivername, url.drivername)
        if driver not in _DRIVERS.values():
            raise InvalidSettings(
                f"BACKEND_DATABASE_URL names {url.drivername!r}: this service runs on sqlite and postgresql."
            )
        return url.set(drivername=driver)

    def with_database(self, url: str) -> Self:
        """The same settings for another database."""
        return self.model_copy(update={"database_url": url})


def _variable(field: str) -> str:
    return field if field.isupper() else f"BACKEND_{field.upper()}"
