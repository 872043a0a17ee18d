"""`baton config check`: whether the files of limits and tenants are without faults."""

from __future__ import annotations

import typer

from coordination.cli.limits import LimitsFile, TenantsFile
from coordination.cli.options import Json
from coordination.cli.output import Exit, NotConfigured, complain, print_json
from coordination.errors import InvalidSettings

app = typer.Typer(no_args_is_help=True, help="Configuration files: check them.")


@app.callback()
def config() -> None:
    """Configuration files: check them."""


@app.command()
def check(limits: LimitsFile = None, tenants: TenantsFile = None, json: Json = False) -> None:
    """Check limits.yaml and tenants.yaml, and list all faults. Exit status 1 if there are any."""
    from coordination.limits.files import load_limits

    if limits is None and tenants is None:
        raise NotConfigured(
            "Nothing to check: use --limits and --tenants, or set BATON_LIMITS_FILE, BATON_TENANTS_FILE."
        )
    try:
        found = load_limits(limits, tenants)
    except InvalidSettings as wrong:
        if json:
            print_json({"ok": False, "faults": wrong.faults})
        else:
            complain(str(wrong))
        raise typer.Exit(Exit.BAD_ANSWER) from None
    counts = {
        "providers": len(found.limits.providers),
        "limits": sum(len(provider.limits) for provider in found.limits.providers.values()),
        "plans": len(found.tenants.plans),
        "tenants": len(found.tenants.tenants),
    }
    if json:
        print_json({"ok": True, "faults": [], **counts})
    else:
        print(f"No faults: {', '.join(f'{many} {what}' for what, many in counts.items())}.")
