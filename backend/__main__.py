"""`python -m backend`: the service, its tokens, its schema.

Exit status: 0 done; 2 the command line or the configuration is wrong; 3 the database cannot be used; 4 no such token.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
import uvicorn

from backend.app import create_app
from backend.database import Database
from backend.errors import InvalidSettings, NotFound, is_away
from backend.migrations import upgrade
from backend.retention import prune
from backend.settings import BackendSettings
from backend.tokens import admit_token, create_token, list_tokens, revoke_token

app = typer.Typer(
    name="python -m backend",
    help="The reference backend: what outlives a call, behind an HTTP API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
token = typer.Typer(help="Tokens of tenants.", no_args_is_help=True)
app.add_typer(token, name="token")

_WRONG: Final = 2
_AWAY: Final = 3
_MISSING: Final = 4


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
    migrate_first: Annotated[bool, typer.Option("--migrate/--no-migrate", help="Bring the schema up first.")] = True,
) -> None:
    """Run the service until it gets SIGTERM; requests under way are finished."""
    settings = BackendSettings()
    asyncio.run(_prepare(settings, migrate_first=migrate_first))
    uvicorn.run(
        create_app(settings), host=host, port=port, log_level="info", access_log=False, timeout_graceful_shutdown=20
    )


@app.command()
def migrate() -> None:
    """Bring the schema of the database to what this release needs."""
    asyncio.run(_migrate(BackendSettings()))


@app.command(name="prune")
def prune_now() -> None:
    """Delete what is past its retention."""
    for table, count in asyncio.run(_prune(BackendSettings())).items():
        print(f"{table}: {count}")


@app.command()
def openapi(
    output: Annotated[
        Path | None, typer.Argument(help="File to write; otherwise it is printed.", dir_okay=False)
    ] = None,
) -> None:
    """Write the description of the API (OpenAPI 3.1)."""
    text = describe()
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")


@token.command()
def create(
    tenant: Annotated[str, typer.Argument(help="The tenant that the token speaks for.")],
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(help="Days until it expires; by default it does not.")] = None,
) -> None:
    """Make a token and print it. It cannot be shown again."""
    lifetime = timedelta(days=days) if days is not None else None
    print(asyncio.run(_create(tenant, label, lifetime)))


@token.command(name="list")
def list_all() -> None:
    """List the tokens: id, tenant, label, and whether they are valid."""
    for line in asyncio.run(_list()):
        print(line)


@token.command()
def revoke(token_id: Annotated[str, typer.Argument(help="The id, as `token list` shows it.")]) -> None:
    """Refuse a token from now on."""
    asyncio.run(_revoke(token_id))


def describe() -> str:
    """The OpenAPI document, the same for every configuration."""
    return json.dumps(create_app(BackendSettings(database_url="sqlite://")).openapi(), indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Never shows a traceback for an error that was raised on purpose, or for a database that is away."""
    try:
        app()
    except InvalidSettings as wrong:
        _complain(str(wrong), _WRONG)
    except NotFound as missing:
        _complain(str(missing), _MISSING)
    except Exception as error:
        if not is_away(error):
            raise
        _complain(f"The database cannot be used ({error}). Is BACKEND_DATABASE_URL right, and is it running?", _AWAY)


def _complain(sentence: str, status: int) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(status)


@asynccontextmanager
async def _open(settings: BackendSettings) -> AsyncGenerator[Database]:
    database = Database(settings)
    try:
        yield database
    finally:
        await database.close()


async def _migrate(settings: BackendSettings) -> None:
    async with _open(settings) as database:
        await upgrade(database)


async def _prepare(settings: BackendSettings, *, migrate_first: bool) -> None:
    async with _open(settings) as database:
        if migrate_first:
            await upgrade(database)
        if settings.bootstrap_token is not None:
            await admit_token(database, settings.bootstrap_token.get_secret_value())


async def _prune(settings: BackendSettings) -> dict[str, int]:
    async with _open(settings) as database:
        return await prune(database, settings)


async def _create(tenant: str, label: str, lifetime: timedelta | None) -> str:
    async with _open(BackendSettings()) as database:
        await upgrade(database)
        _, made = await create_token(database, tenant, label=label, lifetime=lifetime)
        return made


async def _list() -> list[str]:
    async with _open(BackendSettings()) as database:
        return [
            f"{row.id}  {row.tenant}  {row.label or '-'}  {'revoked' if row.revoked_at else row.expires_at or 'valid'}"
            for row in await list_tokens(database)
        ]


async def _revoke(token_id: str) -> None:
    async with _open(BackendSettings()) as database:
        await revoke_token(database, token_id)


if __name__ == "__main__":
    main()
