"""What the commands print: tables for people, JSON for programs, complaints on stderr, and the exit statuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordination.errors import CoordinationError


class Exit(IntEnum):
    """Exit statuses; the package's docstring tells what they mean to a caller."""

    OK = 0
    BAD_ANSWER = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_FOUND = 4
    INTERRUPTED = 130


class NotFound(CoordinationError):
    """There is no such room or agent."""

    exit_status = Exit.NOT_FOUND


class NotConfigured(CoordinationError):
    """A command needs a server that is not configured."""

    exit_status = Exit.UNAVAILABLE


def complain(text: str) -> None:
    """An error, on stderr, without markup: the text may hold anything."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("baton: ", style="bold red") + Text(text), highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout; durations as seconds, times in ISO 8601."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=_plain)
    sys.stdout.write("\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table on stdout, or the sentence `empty` when there are no rows. Values are shown as text, never as markup."""
    console = Console()
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column, header_style="dim", overflow="fold")
    for row in rows:
        table.add_row(*(each if isinstance(each, Text) else Text("-" if each is None else str(each)) for each in row))
    if table.row_count:
        console.print(table)
    else:
        console.print(Text(empty), soft_wrap=True)


def seconds(duration: timedelta | None) -> str | None:
    """A duration for people."""
    return None if duration is None else f"{duration.total_seconds():.1f} s"


def ago(moment: datetime) -> str:
    """How long ago, for people."""
    passed = int((datetime.now(moment.tzinfo) - moment).total_seconds())
    if passed < 120:
        return f"{passed} s ago"
    return f"{passed // 60} min ago" if passed < 7200 else f"{passed // 3600} h ago"


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
