"""JSON merge patch (RFC 7396), for every document that several parties write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2: objects merge, null removes, anything else replaces. Changes neither argument."""
    if not isinstance(patch, Mapping):
        return patch
    merged: dict[str, Any] = dict(cast("Mapping[str, Any]", target)) if isinstance(target, Mapping) else {}
    for key, value in cast("Mapping[str, Any]", patch).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
