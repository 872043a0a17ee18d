"""What can go wrong, on purpose: processes, Redis, the network, LiveKit.

Each fault is a value; `inflict` makes it happen, waits for as long as it lasts, and undoes it:

    strike = await inflict(kill(Victim.of(pid, "billing's job")))
    strike.at.monotonic

Faults touch only what they were given: processes by pid (and never another process that got the same pid later),
servers that this process started, proxies.
"""

from coordination.testing.faults.fault import Fault, FaultImpossible, FaultKind, Moment, Strike, inflict
from coordination.testing.faults.network import black_hole, cut, delay, refuse
from coordination.testing.faults.processes import Victim, kill, offspring, pause
from coordination.testing.faults.servers import RedisFaults, restart_livekit

__all__ = [
    "Fault",
    "FaultImpossible",
    "FaultKind",
    "Moment",
    "RedisFaults",
    "Strike",
    "Victim",
    "black_hole",
    "cut",
    "delay",
    "inflict",
    "kill",
    "offspring",
    "pause",
    "refuse",
    "restart_livekit",
]
