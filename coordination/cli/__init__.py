"""The `baton` command: the development stack, a check-up, and an operator's view of rooms, agents and the floor.

Tables for people, `--json` for programs. Exit status:

    0   done
    1   done, and the answer is bad: doctor found a fault, nobody held the floor, an agent ended by itself
    2   the command line is wrong
    3   Redis or LiveKit cannot be reached, refuses, or is not configured
    4   there is no such room, agent, provider or limit
    130 interrupted before the command was done
"""

from __future__ import annotations

from coordination.cli.app import main

__all__ = ["main"]
