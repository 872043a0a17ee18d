"""The command line as a whole: its groups, and how errors become messages and exit statuses."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated

import typer

from coordination.cli import agents, config, dev, doctor, floor, limits, outbox, rooms
from coordination.cli.output import Exit, complain
from coordination.errors import CoordinationError, InvalidArgument, InvalidName, InvalidSettings, UnknownProvider

app = typer.Typer(
    name="baton",
    help="Several LiveKit voice agents in one room, acting as one team.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit status: 0 done; 1 bad answer; 2 wrong command line; 3 Redis or LiveKit away; 4 no such room or agent.",
)
app.command("dev")(dev.dev)
app.command("doctor")(doctor.doctor)
app.command("rooms")(rooms.rooms)
app.command("workers")(agents.workers)
app.add_typer(agents.app, name="agents")
app.add_typer(floor.app, name="floor")
app.add_typer(outbox.app, name="outbox")
app.add_typer(limits.app, name="limits")
app.add_typer(config.app, name="config")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"baton {importlib.metadata.version('livekit-baton')}")
        raise typer.Exit


@app.callback()
def baton(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Several LiveKit voice agents in one room, acting as one team."""


def main() -> None:
    """The entry point of `baton`. Never shows a traceback for an error that Baton raised on purpose."""
    try:
        app()
    except (InvalidName, InvalidArgument) as wrong:
        complain(str(wrong))
        sys.exit(Exit.USAGE)
    except UnknownProvider as unknown:
        complain(str(unknown))
        sys.exit(Exit.NOT_FOUND)
    except InvalidSettings as wrong:
        complain(str(wrong))
        sys.exit(Exit.UNAVAILABLE)
    except CoordinationError as failure:
        complain(str(failure))
        sys.exit(getattr(failure, "exit_status", Exit.UNAVAILABLE))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
