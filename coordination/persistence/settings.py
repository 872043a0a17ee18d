"""Where the backend is, and where what it has not got yet is kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordination.errors import InvalidSettings
from coordination.ids import Tenant
from coordination.persistence.errors import BackendNotConfigured
from coordination.settings import Seconds


class PersistenceSettings(BaseSettings):
    """What a process needs to reach the backend. Every field is also `BATON_<NAME>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="BATON_", env_ignore_empty=True, extra="ignore", frozen=True)

    backend_url: str | None = None
    """Where the backend serves, e.g. http://localhost:8000. Unset: nothing is kept beyond the call."""
    backend_token: SecretStr | None = None
    """The tenant's token; it decides whose data are read and written."""
    backend_tokens: Mapping[str, SecretStr] = Field(default_factory=dict[str, SecretStr])
    """By tenant, where one process serves calls of several: {"acme": "bt_..."}. Others have `backend_token`."""
    backend_timeout: Seconds = Field(default=timedelta(seconds=2), gt=timedelta(0), le=timedelta(seconds=10))
    """For one request of somebody who waits, such as an agent that greets its caller by name. Retries included."""
    outbox_file: Path = Path("~/.local/state/baton/outbox.sqlite3")
    """Where undelivered items are kept without Redis: a local disk that can be written and outlives the process."""
    outbox_sync: bool = False
    """Wait for the disk at each item, so that it outlives a power cut as well as a killed process."""
    outbox_drain: Seconds = Field(default=timedelta(seconds=5), ge=timedelta(0), le=timedelta(minutes=1))
    """At shutdown: how long a process goes on delivering what is due. The rest waits for the next one."""

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

    def token_of(self, tenant: Tenant) -> str | None:
        """The token with which this tenant's data are read and written."""
        token = self.backend_tokens.get(tenant, self.backend_token)
        return token.get_secret_value() if token else None

    def require_backend_url(self) -> str:
        """The URL. Raises `BackendNotConfigured` if there is none."""
        if not self.backend_url:
            raise BackendNotConfigured(
                "No backend is configured: set BATON_BACKEND_URL, e.g. http://localhost:8000, and BATON_BACKEND_TOKEN."
            )
        return self.backend_url
