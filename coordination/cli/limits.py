"""`baton limits show | set | block | unblock`: who uses what, and an operator's hand on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordination.cli.options import Json, RedisUrl, redis
from coordination.cli.output import Exit, NotConfigured, print_json, print_table
from coordination.errors import InvalidArgument, InvalidSettings
from coordination.limits.usage import ProviderUse

if TYPE_CHECKING:
    from coordination.limits.limits import Limits

LimitsFile = Annotated[
    Path | None, typer.Option("--limits", envvar="BATON_LIMITS_FILE", help="The limits of providers, limits.yaml.")
]
TenantsFile = Annotated[
    Path | None, typer.Option("--tenants", envvar="BATON_TENANTS_FILE", help="Tenants and plans, tenants.yaml.")
]
TenantArgument = Annotated[str, typer.Argument(help="The tenant's name.", show_default=False)]

app = typer.Typer(no_args_is_help=True, help="Limits of providers: who uses what, set one, block a tenant.")


@app.command()
def show(
    provider: Annotated[str | None, typer.Argument(help="One provider, or `calls`; all by default.")] = None,
    minutes: Annotated[int, typer.Option(help="Count what was used in the last minutes.", min=1, max=60)] = 5,
    limits: LimitsFile = None,
    tenants: TenantsFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Show what each limit has left, who waits, and what each tenant used lately."""
    found, overrides, blocked = asyncio.run(_show(provider, minutes, limits, tenants, redis(redis_url)))
    if json:
        print_json({"providers": [asdict(each) for each in found], "set": overrides, "blocked": blocked})
        return
    for use in found:
        _print_provider(use, minutes, overrides)
    if blocked:
        print_table("blocked tenants", ("tenant", "why"), blocked.items(), empty="")


@app.command(name="set")
def set_limit(
    provider: Annotated[str, typer.Argument(help="The provider.", show_default=False)],
    limit: Annotated[str, typer.Argument(help="The limit's name.", show_default=False)],
    value: Annotated[int | None, typer.Argument(help="Units per period; left out with --reset.")] = None,
    burst: Annotated[int | None, typer.Option(help="How much may come at one moment.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Back to what is configured.")] = False,
    limits: LimitsFile = None,
    redis_url: RedisUrl = None,
) -> None:
    """Set a limit for all workers at once, over what is configured. It outlives restarts, until --reset."""
    if (value is None) != reset:
        raise typer.BadParameter("give the new value of the limit, or --reset.")
    values = None if value is None else {"limit": value, **({} if burst is None else {"burst": burst})}
    changed = asyncio.run(_set(provider, limit, values, limits, redis(redis_url)))
    what = "is back at what is configured" if values is None else f"is {value} for all workers now"
    print(f"{provider}.{limit} {what}." if changed else f"{provider}.{limit} was so already.")


@app.command()
def block(
    tenant: TenantArgument,
    reason: Annotated[str, typer.Option(help="What the tenant's agents are told.")] = "operator",
    redis_url: RedisUrl = None,
) -> None:
    """Refuse every new request and call of a tenant, in all workers, until it is unblocked."""
    changed = asyncio.run(_block(tenant, reason, redis(redis_url)))
    print(f"{tenant} is blocked." if changed else f"{tenant} was blocked already.")


@app.command()
def unblock(tenant: TenantArgument, redis_url: RedisUrl = None) -> None:
    """Let a tenant in again. Exit status 1 if it was not blocked."""
    changed = asyncio.run(_block(tenant, None, redis(redis_url)))
    print(f"{tenant} is let in again." if changed else f"{tenant} was not blocked.")
    raise typer.Exit(Exit.OK if changed else Exit.BAD_ANSWER)


def _print_provider(use: ProviderUse, minutes: int, overrides: dict[str, Any]) -> None:
    rows = [
        (
            each.limit,
            f"{each.size:g} {each.unit}" + (f" per {each.per:g} s" if each.per else " at once"),
            f"{each.available:g}",
            "yes" if f"{use.provider}/{each.limit}" in overrides else None,
        )
        for each in use.limits
    ]
    title = f"{use.provider}: {use.processes} processes, {sum(use.waiting.values())} waiting"
    print_table(title, ("limit", "size", "left now", "set by operator"), rows, empty=f"{title}; no limit for all.")
    users = [
        (
            each.tenant,
            each.admitted,
            f"{each.share:.0%}",
            each.waited,
            each.refused,
            use.waiting.get(each.tenant, 0),
            ", ".join(f"{amount:g} {unit}" for unit, amount in sorted(each.units.items())),
        )
        for each in use.tenants
    ]
    columns = ("tenant", "admitted", "share", "waited", "refused", "waiting", "used")
    print_table(f"the last {minutes} minutes", columns, users, empty=f"Nobody used it in the last {minutes} minutes.")


@asynccontextmanager
async def _opened(limits: Path | None, tenants: Path | None, redis_url: str) -> AsyncGenerator[Limits]:
    # Imported here, so that `baton --help` needs no Redis.
    from coordination.coordinator import Coordinator
    from coordination.limits.files import load_limits

    config = load_limits(limits, tenants)
    async with Coordinator.open(redis_url, limits=config) as coordinator:
        yield coordinator.limits


async def _show(
    provider: str | None, minutes: int, limits: Path | None, tenants: Path | None, redis_url: str
) -> tuple[list[ProviderUse], dict[str, dict[str, Any]], dict[str, str]]:
    _require(limits)
    async with _opened(limits, tenants, redis_url) as opened:
        names = (provider,) if provider else (*opened.config.limits.providers, "calls")
        span = timedelta(minutes=minutes)
        return [await opened.show(name, span=span) for name in names], await opened.overrides(), await opened.blocked()


async def _set(provider: str, limit: str, values: dict[str, Any] | None, limits: Path | None, redis_url: str) -> bool:
    _require(limits)
    async with _opened(limits, None, redis_url) as opened:
        try:
            return await opened.set(provider, limit, values)
        except InvalidSettings as faults:
            raise InvalidArgument(str(faults)) from faults


async def _block(tenant: str, reason: str | None, redis_url: str) -> bool:
    async with _opened(None, None, redis_url) as opened:
        return await (opened.unblock(tenant) if reason is None else opened.block(tenant, reason=reason))


def _require(limits: Path | None) -> None:
    if limits is None:
        raise NotConfigured("No limits are configured: set BATON_LIMITS_FILE, or use --limits limits.yaml.")
