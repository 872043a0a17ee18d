"""Two halves of the suite run side by side: one makes calls, in real time; the other gives way to it.

A call costs minutes in which the machine is half idle; everything else needs the processor and nobody's ears. Run by
`pytest -n 2 --dist loadgroup`, each half has a process of its own, and the one without calls has the lower priority.
Without that option all tests run one after the other, as ever.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CALLS = ("agents", "rooms", "browser")
"""Folders whose tests speak and listen."""
CALLING_FILES = ("test_chaos_calls.py", "test_mutants_calls.py")
"""Others that do."""
GIVES_WAY = 10
"""Added to the niceness of the half without calls."""


def _calls(item: pytest.Item) -> bool:
    folder = item.path.relative_to(HERE).parts[0]
    return folder in CALLS or item.path.name in CALLING_FILES


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): tests of one group run in one process")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group("calls" if _calls(item) else "no calls"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    side_by_side = "PYTEST_XDIST_WORKER" in os.environ
    if side_by_side and not _calls(item) and os.getpriority(os.PRIO_PROCESS, 0) < GIVES_WAY:
        os.setpriority(os.PRIO_PROCESS, 0, GIVES_WAY)
