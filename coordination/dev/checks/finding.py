"""One result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """Something does not work or will not scale; calls do."""
    FAULT = "fault"
    """Calls cannot work like this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, what was found, and what to do about it."""

    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    return Finding(subject=subject, verdict=Verdict.OK, text=text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    return Finding(subject=subject, verdict=Verdict.WARNING, text=text, remedy=remedy)


def fault(subject: str, text: str, remedy: str) -> Finding:
    return Finding(subject=subject, verdict=Verdict.FAULT, text=text, remedy=remedy)
