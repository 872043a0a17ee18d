"""`baton dev`: a user's own agents, with everything that they need, on this machine."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from coordination.cli.options import RedisUrl
from coordination.cli.output import Exit, complain
from coordination.dev.errors import ComponentFailed, NoSuchAgent
from coordination.dev.serve import DEFAULT_PAGE_PORT, PageOptions, serve
from coordination.dev.stack import DevStack
from coordination.dev.workers import WorkerSpec

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red")
_LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}
_TELLING = ("room", "agent_name", "job_id", "error", "exception", "exc_info")
"""What of a log record's fields is shown beside its message; the files hold all of them."""


def dev(
    agents: Annotated[
        list[str],
        typer.Argument(
            help="Agent files (my_agent.py), folders or modules; calls go to the first.", show_default=False
        ),
    ],
    port: Annotated[int, typer.Option(help="Of the page; 0 takes a free one.")] = DEFAULT_PAGE_PORT,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the page to talk to the agents.")] = True,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    idle_processes: Annotated[int, typer.Option(help="Job processes that each worker keeps ready.", min=0)] = 1,
    logs: Annotated[
        Path | None, typer.Option(help="Folder for the logs of all parts; a temporary one by default.", file_okay=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Don't show what the workers log.")] = False,
    redis_url: RedisUrl = None,
) -> None:
    """Run your agents with Valkey, livekit-server and a page to talk to them. Ctrl-C stops all of it.

    What LIVEKIT_URL and BATON_REDIS_URL name is used; the rest is started here, on 127.0.0.1, and ends with this.
    """
    console = Console()
    stack = DevStack(
        [
            WorkerSpec(target=agent, idle_processes=idle_processes, drain_timeout=timedelta(seconds=1))
            for agent in agents
        ],
        redis_url=redis_url,
        directory=logs,
        on_line=None if quiet else LinePrinter(console),
        progress=lambda sentence: console.print(Text(sentence, style="dim"), soft_wrap=True),
    )
    options = PageOptions(port=port, open_browser=browser) if page else None
    try:
        asyncio.run(serve(stack, page=options, on_ready=lambda up, address: _greet(console, up, address)))
    except NoSuchAgent as wrong:
        raise typer.BadParameter(str(wrong), param_hint="AGENTS") from None
    except ComponentFailed as failed:
        complain(str(failed))
        raise typer.Exit(Exit.BAD_ANSWER) from None
    console.print(Text("Stopped.", style="dim"))


class LinePrinter:
    """Prints what workers log, each line behind its worker's name, in the worker's colour."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._colours: dict[str, str] = {}

    def __call__(self, name: str, line: str) -> None:
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        prefix = Text(f"{name:<14} ", style=colour)
        self._console.print(prefix + readable(line), soft_wrap=True, highlight=False)


def readable(line: str) -> Text:
    """A worker's log line for people: the message of a JSON record and its telling fields, any other line as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return Text(line)
    if not isinstance(record, dict) or "message" not in record:
        return Text(line)
    fields: dict[str, object] = {str(key): value for key, value in record.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    text = Text(str(fields["message"]), style=_LEVELS.get(str(fields.get("level")), ""))
    for key in _TELLING:
        if fields.get(key):
            text.append(f"  {key}={fields[key]}", style="dim")
    return text


def _greet(console: Console, stack: DevStack, address: str | None) -> None:
    console.print()
    if address is not None:
        console.print(Text("Talk to your agents:  ", style="bold") + Text(address, style="bold cyan"))
    for worker in stack.workers:
        if not worker.role:
            sentence = (
                f"{worker.name} has no agent_name: LiveKit sends it to every room, and nobody can hand over to it."
            )
            console.print(Text(sentence, style="yellow"), soft_wrap=True)
    console.print(Text("For other terminals:", style="dim"))
    for name, value in stack.environment.items():
        console.print(Text(f"  export {name}={value}", style="dim"), soft_wrap=True)
    console.print(Text(f"Logs are in {stack.directory}. Ctrl-C stops everything.", style="dim"), soft_wrap=True)
    console.print()
