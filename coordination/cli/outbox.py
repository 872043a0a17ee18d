"""`baton outbox show | replay | forget`: what is on its way to the backend, and what the backend does not take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordination.cli.options import Json, RedisUrl
from coordination.cli.output import Exit, ago, print_json, print_table
from coordination.ids import DEFAULT_TENANT, Tenant, check_name

if TYPE_CHECKING:
    from coordination.persistence.outbox.box import Outbox

TenantOption = Annotated[str, typer.Option("--tenant", help="Whose outbox.")]
PrefixOption = Annotated[str, typer.Option("--prefix", envvar="BATON_PREFIX", help="First part of every key in Redis.")]

app = typer.Typer(
    no_args_is_help=True, help="What is on its way to the backend: show it, send it again, forget a user."
)


@app.command()
def show(
    tenant: TenantOption = DEFAULT_TENANT,
    redis_url: RedisUrl = None,
    prefix: PrefixOption = "baton",
    json: Json = False,
) -> None:
    """Show what waits and what was set aside: in Redis, or without it in BATON_OUTBOX_FILE. Never shows what was said.

    Exit status 1 if something was set aside.
    """
    found = asyncio.run(_show(tenant, redis_url, prefix))
    if json:
        print_json(found)
    else:
        _print(found)
    raise typer.Exit(Exit.BAD_ANSWER if found["set_aside"] else Exit.OK)


@app.command()
def replay(
    item: Annotated[str | None, typer.Argument(help="Id of one item; by default all.", show_default=False)] = None,
    tenant: TenantOption = DEFAULT_TENANT,
    redis_url: RedisUrl = None,
    prefix: PrefixOption = "baton",
    json: Json = False,
) -> None:
    """Send again what was set aside; a worker delivers it. Exit status 4 if there is no such item."""
    count = asyncio.run(_replay(item, tenant, redis_url, prefix))
    if json:
        print_json({"replayed": count})
    else:
        print(f"{count} items are on their way again." if count else "Nothing was set aside under that id.")
    raise typer.Exit(Exit.NOT_FOUND if item is not None and not count else Exit.OK)


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="The user's id.", show_default=False)],
    tenant: TenantOption = DEFAULT_TENANT,
    redis_url: RedisUrl = None,
    prefix: PrefixOption = "baton",
    json: Json = False,
) -> None:
    """Remove whatever in the outbox belongs to a user. What the backend has of them is deleted there."""
    count = asyncio.run(_forget(user, tenant, redis_url, prefix))
    if json:
        print_json({"removed": count})
    else:
        print(f"{count} items were removed.")


def _print(found: dict[str, Any]) -> None:
    oldest = f", the oldest for {ago(found['oldest'])}".replace(" ago", "") if found["oldest"] else ""
    print(f"{found['waiting']} items of {found['conversations']} conversations wait{oldest}.")
    rows = [
        (each["id"], each["kind"], each["conversation"], ago(each["at"]), each["reason"]) for each in found["items"]
    ]
    columns = ("set aside", "kind", "conversation", "when", "why")
    print_table("", columns, rows, empty="Nothing was set aside.")


@asynccontextmanager
async def _opened(tenant: str, redis_url: str | None, prefix: str) -> AsyncGenerator[Outbox]:
    # Imported here, so that `baton --help` is quick.
    from coordination.persistence.outbox.opening import open_outbox
    from coordination.persistence.settings import PersistenceSettings

    name = Tenant(check_name(tenant, "tenant"))
    outbox = await open_outbox(PersistenceSettings(), redis_url=redis_url, tenant=name, prefix=prefix)
    try:
        yield outbox
    finally:
        await outbox.close()


async def _show(tenant: str, redis_url: str | None, prefix: str) -> dict[str, Any]:
    async with _opened(tenant, redis_url, prefix) as outbox:
        statistics = asdict(await outbox.statistics())
        aside = await outbox.set_aside()
    items = [
        {
            "id": each.item.id,
            "kind": str(each.item.kind),
            "conversation": each.item.conversation,
            "at": each.at,
            "reason": each.reason,
        }
        for each in aside
    ]
    return {**statistics, "items": items}


async def _replay(item: str | None, tenant: str, redis_url: str | None, prefix: str) -> int:
    async with _opened(tenant, redis_url, prefix) as outbox:
        return await outbox.replay(item)


async def _forget(user: str, tenant: str, redis_url: str | None, prefix: str) -> int:
    async with _opened(tenant, redis_url, prefix) as outbox:
        return await outbox.forget(user)
