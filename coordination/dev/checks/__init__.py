"""What `baton doctor` looks at: this machine, Redis, LiveKit. Each check returns findings, and changes nothing."""

from __future__ import annotations

from coordination.dev.checks.finding import Finding, Verdict
from coordination.dev.checks.machine import check_machine
from coordination.dev.checks.media import check_livekit
from coordination.dev.checks.store import check_redis

__all__ = ["Finding", "Verdict", "check_livekit", "check_machine", "check_redis"]
