"""The migrations make the schema that the models describe, and can be undone."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from backend.database import Database
from backend.migrations import downgrade, upgrade
from backend.models import Base
from backend.settings import BackendSettings
from tests.backend.rig import DIALECTS, NewDatabase


@pytest.fixture(params=DIALECTS)
def url(request: pytest.FixtureRequest, bare_database: NewDatabase) -> str:
    return bare_database(request.param)


async def _with(database: Database, question: Any) -> Any:
    async with database.engine.connect() as connection:
        return await connection.run_sync(question)


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {"alembic_version"}


async def test_upgraded_it_is_what_the_models_describe_and_downgraded_it_is_empty(url: str) -> None:
    database = Database(BackendSettings(database_url=url))
    try:
        await upgrade(database)
        differences, tables = await _with(database, _differences), await _with(database, _tables)
        await downgrade(database, "base")
        left = await _with(database, _tables)
        await upgrade(database)
        again = await _with(database, _tables)
    finally:
        await database.close()

    assert differences == []
    assert tables == again == set(Base.metadata.tables)
    assert left == set()


async def test_a_schema_that_is_current_is_left_alone(url: str) -> None:
    database = Database(BackendSettings(database_url=url))
    try:
        await upgrade(database)
        await upgrade(database)
        differences = await _with(database, _differences)
    finally:
        await database.close()

    assert differences == []
