"""Python and the packages."""

from __future__ import annotations

import importlib.metadata
import operator
import re
import sys
from collections.abc import Callable, Iterator

from coordination.dev.checks.finding import Finding, fault, ok, warning

_DISTRIBUTION = "livekit-baton"
_OLDEST_PYTHON = (3, 11)
_EXTRAS = {
    "livekit": "agents in LiveKit rooms",
    "dev": "`baton dev`: the embedded Valkey and the page",
}
_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?(?P<range>[^;]*)(;(?P<marker>.*))?$")
_BOUND = re.compile(r"(?P<operator><=|>=|<|>|==)\s*(?P<version>[0-9.]+)")
_EXTRA = re.compile(r"extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]")


def check_machine() -> list[Finding]:
    """Python's version, and each package that Baton names: whether it is there, in the range that is supported."""
    return [_python(), *_packages()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return fault("Python", f"is {version}", "Use Python 3.11 or later.")
    return ok("Python", f"is {version}")


def _packages() -> Iterator[Finding]:
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield warning(
            _DISTRIBUTION, "is not installed: this is a bare checkout", f"Install it: pip install {_DISTRIBUTION}"
        )
        return
    yield ok(_DISTRIBUTION, f"is {importlib.metadata.version(_DISTRIBUTION)}")
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            continue
        extra = _EXTRA.search(match["marker"] or "")
        if extra is None or extra["extra"] in _EXTRAS:
            yield _package(match["name"], match["range"].strip(), extra["extra"] if extra else None)


def _package(name: str, wanted: str, extra: str | None) -> Finding:
    install = f"pip install '{_DISTRIBUTION}{f'[{extra}]' if extra else ''}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if extra is None:
            return fault(name, "is not installed", f"Install it: {install}")
        return warning(name, f"is not installed; it is needed for {_EXTRAS[extra]}", f"Install it: {install}")
    if not _within(version, wanted):
        return fault(name, f"is {version}, outside of the supported range {wanted}", f"Install it again: {install}")
    return ok(name, f"is {version}")


def _within(version: str, wanted: str) -> bool:
    have = _numbers(version)
    return all(_COMPARE[bound["operator"]](have, _numbers(bound["version"])) for bound in _BOUND.finditer(wanted))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
