"""Lua scripts in files of their own, addressed by name.

A script file opens with `#!lua`, so that the server refuses it as a whole before it starts (on a replica, out of
memory, with too few replicas) instead of failing between a publish and a write. `--@include name` pulls in
`lua/lib/name.lua` at that line; includes are resolved once, when the script is loaded.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One operation of the store: its text, and the digest that EVALSHA addresses it by."""

    name: str
    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        """The script `lua/<name>.lua`, e.g. `lease/request`. Raises FileNotFoundError for a name that is none."""
        return _load(name)


@cache
def _load(name: str) -> Script:
    folder = files("coordination.store") / "lua"
    text = folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")
    text = _INCLUDE.sub(lambda match: folder.joinpath(f"lib/{match[1]}.lua").read_text(encoding="utf-8"), text)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
