"""The history of the schema, by Alembic; run by `python -m backend migrate`, or at the start of `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from backend.database import Database

HERE: Final = Path(__file__).parent


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; the connection, if there is one, is what it works on."""
    made = Config()
    made.set_main_option("script_location", str(HERE))
    made.attributes["connection"] = connection
    return made


async def upgrade(database: Database, revision: str = "head") -> None:
    """Brings the schema to the revision. Several processes may do so at once: one of them does it."""
    async with database.engine.execution_options(backend_writes=True).begin() as connection:
        await connection.run_sync(lambda it: command.upgrade(config(it), revision))


async def downgrade(database: Database, revision: str) -> None:
    """Goes back to the revision; what only newer ones have is lost."""
    async with database.engine.execution_options(backend_writes=True).begin() as connection:
        await connection.run_sync(lambda it: command.downgrade(config(it), revision))
