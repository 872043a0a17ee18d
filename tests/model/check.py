"""Checks the model of the floor protocol with spin, every state of it; `make model` runs this.

Each run is a setting of floor.pml. The first ones must hold; each of the others takes a rule or an assumption away, and
must lead to a counterexample: else the model does not show what that rule is good for.
docs/reference/model.md explains them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("floor.pml")
AT_ONCE = 2
MEMORY = 900
"""MiB for one run; two at once stay below 2 GiB."""
WITHIN = 300
"""Seconds for one run; against hangs."""


@dataclass(frozen=True, slots=True)
class Run:
    """One setting of the model."""

    name: str
    defines: tuple[str, ...]
    holds: bool = True


RUNS = (
    Run("one master, policy keep", ("FAULTS=3",)),
    Run("one master, policy silence", ("FAULTS=3", "KEEP=0")),
    Run("one master, writes under the fence", ("FAULTS=2", "WRITES")),
    Run("failover, grants confirmed by replicas", ("FAULTS=2", "PROMOTED=1", "LOST=1", "NO_WATCHER")),
    Run("failover, grants confirmed by replicas, watcher", ("FAULTS=1", "PROMOTED=1", "LOST=1")),
    Run("failover that loses grants or all", ("FAULTS=1", "PROMOTED=1", "LOST=2")),
    Run("two masters for a while", ("FAULTS=1", "PROMOTED=1", "LOST=1", "OLD_MASTER=1", "NO_WATCHER")),
    Run("two masters for a while, losses and writes", ("FAULTS=0", "PROMOTED=1", "LOST=2", "OLD_MASTER=1", "WRITES")),
    Run("without the fence check", ("FAULTS=2", "WRITES", "NO_FENCE_CHECK"), holds=False),
    Run("without the rule of expiry", ("FAULTS=2", "NO_RULE_OF_EXPIRY"), holds=False),
    Run("a late grant counts from its reading", ("FAULTS=3", "LATE_GRANT_COUNTS"), holds=False),
    Run("a return into the room is forgotten", ("FAULTS=3", "RETURN_IS_FORGOTTEN"), holds=False),
    Run("losses, and one voice in every moment", ("FAULTS=1", "PROMOTED=1", "LOST=2", "ONE_VOICE_ALWAYS"), holds=False),
    Run("two masters for ever", ("FAULTS=1", "PROMOTED=1", "LOST=1", "OLD_MASTER=2", "NO_WATCHER"), holds=False),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What spin found in one run."""

    run: Run
    states: int
    seconds: float
    megabytes: float
    violated: str
    """The assertion; empty if none was violated."""
    fault: str
    """Why the run says nothing: it did not compile, or did not end."""
    unreached: frozenset[str]

    @property
    def passed(self) -> bool:
        return not self.fault and self.run.holds is not bool(self.violated)


def check(run: Run) -> Outcome:
    """Compiles and runs one setting in a folder of its own."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="baton-model-") as folder:
        defines = [f"-D{define}" for define in run.defines]
        steps = (
            ["spin", "-a", *defines, str(MODEL)],
            [
                compiler(),
                "-w",
                "-O2" if run.holds else "-O0",
                "-DSAFETY",
                "-DNOFAIR",
                f"-DMEMLIM={MEMORY}",
                "-o",
                "pan",
                "pan.c",
            ],
            ["./pan", "-m100000", "-w22"],
        )
        text = ""
        for step in steps:
            try:
                done = subprocess.run(step, cwd=folder, capture_output=True, text=True, timeout=WITHIN, check=False)
            except subprocess.TimeoutExpired:
                text = f"{step[0]} took longer than {WITHIN} s"
                break
            text = done.stdout + done.stderr
            if done.returncode:
                break
    return read(run, text, time.monotonic() - began)


def read(run: Run, text: str, seconds: float) -> Outcome:
    """Reads the report of the verifier."""
    errors = re.search(r"errors: (\d+)", text)
    violated = re.search(r"^pan:\d+: (.*?) \(at depth", text, re.MULTILINE)
    states = re.search(r"^ *([\d.e+]+) states, stored", text, re.MULTILINE)
    memory = re.search(r"([\d.]+)\s+total actual memory", text)
    complete = "Search not completed" not in text and "too small" not in text
    fault = "" if errors and (violated or complete) else (text.strip().splitlines() or ["no report"])[-1]
    sections = re.findall(r"^unreached in proctype (\w+)\n((?:\t.*\n)*)", text, re.MULTILINE)
    return Outcome(
        run=run,
        states=int(float(states[1])) if states else 0,
        seconds=seconds,
        megabytes=float(memory[1]) if memory else 0.0,
        violated=violated[1] if violated else "",
        fault=fault,
        unreached=frozenset(
            f"{process}, {re.sub(r', state [0-9]+', '', line)}"
            for process, lines in sections
            for line in re.findall(r"\t(floor\.pml:.*)", lines)
            if "-end-" not in line
        ),
    )


def compiler() -> str:
    return os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "")


def unreached_everywhere(outcomes: list[Outcome]) -> list[str]:
    """What no run without a failover does, or no run with one: a transition that can never happen shows nothing."""
    dead: set[str] = set()
    for promoted in (False, True):
        chosen = [each for each in outcomes if each.run.holds and ("PROMOTED=1" in each.run.defines) is promoted]
        dead |= frozenset[str].intersection(*(each.unreached for each in chosen))
    return sorted(dead)


def main() -> int:
    missing = [name for name, there in (("spin", shutil.which("spin")), ("a C compiler", compiler())) if not there]
    if missing:
        print(
            f"The model check needs {' and '.join(missing)}. On Debian and Ubuntu: apt-get install spin gcc libc6-dev"
        )
        return 2
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(check, RUNS))
    for outcome in outcomes:
        found = outcome.fault or ("counterexample" if outcome.violated else "holds")
        print(
            f"{'PASS' if outcome.passed else 'FAIL'}  {outcome.run.name:<50} {found:<15}"
            f" {outcome.states:>9,} states {outcome.seconds:5.1f} s {outcome.megabytes:5.0f} MB"
        )
        if outcome.violated and outcome.run.holds:
            print(f"      {outcome.violated}\n      {' '.join(f'-D{define}' for define in outcome.run.defines)}")
    dead = unreached_everywhere(outcomes)
    for line in dead:
        print(f"FAIL  never happens in any run: {line}")
    return 0 if all(outcome.passed for outcome in outcomes) and not dead else 1


if __name__ == "__main__":
    sys.exit(main())
