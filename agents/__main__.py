"""The reference application from a checkout: `python -m agents demo | dev | start`.

Exit status: 0 done, and for a demo that the call was ok; 1 the call was not ok; 2 the command line or a scenario is
wrong; 3 a part of the stack cannot be had or is not configured; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from dotenv import load_dotenv
from livekit.agents.__main__ import main as livekit_main
from rich.console import Console
from rich.text import Text

from agents.demo import DEFAULT_SCENARIO, LIMITS, NoSuchScenario, find_scenario, run_demo, workers
from agents.show import Narrator, summarise
from config import Role
from coordination.cli.output import Exit, complain
from coordination.errors import CoordinationError
from coordination.testing.scenario import InvalidScenario

CHECKOUT = Path(__file__).parents[1]

app = typer.Typer(
    name="python -m agents",
    help="The reference application: three agents of an internet provider's phone line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def demo(
    scenario: Annotated[str, typer.Option(help="A shipped scenario, or the path of a file.")] = DEFAULT_SCENARIO,
    report: Annotated[Path | None, typer.Option(help="Write the report there, as JSON.", dir_okay=False)] = None,
    record: Annotated[
        Path | None, typer.Option(help="Folder for the recording, a picture of it, and the report.", file_okay=False)
    ] = None,
    logs: Annotated[Path | None, typer.Option(help="Folder for the logs of all parts.", file_okay=False)] = None,
    calls: Annotated[int | None, typer.Option(help="Of a scenario with faults: calls at once.", min=1, max=20)] = None,
    real: Annotated[bool, typer.Option("--real", help="Use real providers whose keys are set; costs money.")] = False,
) -> None:
    """Run a whole call with a simulated caller and print it. No keys, no servers needed."""
    console = Console()
    if scenario == LIMITS:
        _demo_limits(console, report, logs)
        return
    call = find_scenario(scenario)
    if calls is not None:
        call = call.model_copy(update={"calls": calls})
    outcome = asyncio.run(
        run_demo(
            call,
            real_providers=real,
            record=record and record.absolute(),
            logs=logs and logs.absolute(),
            tell=Narrator(console),
            progress=lambda sentence: console.print(Text(sentence, style="dim"), soft_wrap=True),
        )
    )
    summarise(console, outcome)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        outcome.write(report)
    if not outcome.ok:
        raise typer.Exit(Exit.BAD_ANSWER)


def _demo_limits(console: Console, report: Path | None, logs: Path | None) -> None:
    """The scenario of many calls at once, on emulated providers."""
    # Imported here: only this scenario needs the plugins of the providers.
    from agents.limits.scenario import run_limits
    from agents.limits.show import show_limits

    # The SDK takes rooms that are closed under their callers for accidents, and says so three times for each.
    logging.getLogger("livekit").setLevel(logging.CRITICAL)
    outcome = asyncio.run(
        run_limits(
            logs=logs and logs.absolute(),
            progress=lambda sentence: console.print(Text(sentence, style="dim"), soft_wrap=True),
        )
    )
    show_limits(console, outcome)
    if report is not None:
        outcome.write(report)
    if not outcome.ok:
        raise typer.Exit(Exit.BAD_ANSWER)


@app.command(context_settings=_PASSED_ON)
def start(context: typer.Context, role: Role) -> None:
    """Run one role's worker in production. Further options are LiveKit's own (--log-level, --url, ...)."""
    raise typer.Exit(livekit_main(["start", _file_of(role), *context.args]))


@app.command(context_settings=_PASSED_ON)
def dev(context: typer.Context, role: Annotated[Role | None, typer.Argument()] = None) -> None:
    """Run one role's worker for development; without a role all three, with a page to talk to them.

    With a role, further options are LiveKit's own; without, they are those of `baton dev`.
    """
    if role is not None:
        raise typer.Exit(livekit_main(["start", _file_of(role), "--dev", "--log-format", "colored", *context.args]))
    from coordination.cli.app import app as baton

    baton(["dev", *(spec.target for spec in workers()), *context.args], prog_name="python -m agents")


def _file_of(role: Role) -> str:
    return str(CHECKOUT / "agents" / role.value / "agent.py")


def main() -> None:
    """Never shows a traceback for an error that was raised on purpose."""
    load_dotenv(CHECKOUT / ".env")
    try:
        app()
    except (NoSuchScenario, InvalidScenario) as wrong:
        complain(str(wrong))
        sys.exit(Exit.USAGE)
    except CoordinationError as failure:
        complain(str(failure))
        sys.exit(Exit.UNAVAILABLE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
