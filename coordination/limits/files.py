"""`limits.yaml` and `tenants.yaml`: read with all faults at once, and read again when they change."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final, cast

from coordination.errors import InvalidSettings
from coordination.limits.config import LimitsConfig, LimitSettings, TenantSettings
from coordination.limits.faults import checked, faulty

logger = logging.getLogger("coordination.limits")

LOOK_EVERY: Final = 1.0
"""Seconds between looks at the files; one `stat` each."""


def load_limits(limits: Path | None = None, tenants: Path | None = None) -> LimitsConfig:
    """The configuration in the files. Raises `InvalidSettings`, which lists all faults with their places."""
    faults: list[str] = []
    contents = [_read(path, faults) if path is not None else {} for path in (limits, tenants)]
    if not faults:
        return LimitsConfig.parse(*contents)
    # What one file cannot say is not held against the other.
    for schema, content, where in zip((LimitSettings, TenantSettings), contents, ("limits", "tenants"), strict=True):
        checked(schema, content, where, faults)
    raise faulty(faults)


def _read(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError:
        raise InvalidSettings("Files of limits need PyYAML: pip install pyyaml") from None
    try:
        content: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path.name} cannot be read: {getattr(error, 'strerror', None) or error}")
        return {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        faults.append(f"{path.name}{line}: {getattr(error, 'problem', None) or 'it is no YAML'}")
        return {}
    if content is not None and not isinstance(content, dict):
        faults.append(f"{path.name}: it must hold a mapping")
        return {}
    return cast("dict[str, Any]", content or {})


class FollowedFiles:
    """The two files, looked at every second. A version with faults is logged and not used."""

    def __init__(self, limits: Path | None, tenants: Path | None) -> None:
        self._paths = (limits, tenants)
        self._seen = self._stamp()

    def load(self) -> LimitsConfig:
        """Raises `InvalidSettings`."""
        return load_limits(*self._paths)

    async def next(self) -> LimitsConfig:
        """Returns the next version that is without faults."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            stamp = self._stamp()
            if stamp == self._seen:
                continue
            self._seen = stamp
            try:
                return self.load()
            except InvalidSettings as error:
                logger.error("the limits stay as they were: %s", error)

    def _stamp(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp_of(path) for path in self._paths)


def _stamp_of(path: Path | None) -> tuple[int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size)
