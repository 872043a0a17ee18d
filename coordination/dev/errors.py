"""What can go wrong while the development stack starts; each text names the part and the remedy."""

from __future__ import annotations

from coordination.errors import CoordinationError


class DevError(CoordinationError):
    """Base of what the development stack raises."""


class NoSuchAgent(DevError, ValueError):
    """What was given as an agent is neither a file nor a module."""

    def __init__(self, target: str, why: str) -> None:
        self.target = target
        super().__init__(
            f"There is no agent {target}: {why}. Give a Python file, a folder with an agent.py, or a module."
        )


class ComponentMissing(DevError):
    """A program or package that the stack needs is not on this machine."""

    def __init__(self, component: str, remedy: str) -> None:
        self.component, self.remedy = component, remedy
        super().__init__(f"{component} was not found on this machine. {remedy}")


class ComponentFailed(DevError):
    """A part was started and ended, or did not become ready in time; `log` holds its last lines."""

    def __init__(self, component: str, what: str, *, log: str = "", log_file: str = "") -> None:
        self.component, self.what, self.log, self.log_file = component, what, log, log_file
        where = f"\nIts log is {log_file}." if log_file else ""
        lines = "\n".join(f"  {line}" for line in log.splitlines())
        last = f"\nIts last lines:\n{lines}" if lines else "\nIt wrote nothing."
        super().__init__(f"{component} {what}.{last}{where}")
