"""
Which schema a database has, and how it gets the one that this program needs. The steps are in `migrations/`, which is a
part of the installed package.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import assert_never

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

import responder
from responder.errors import StoreOutdated, StoreUnavailable
from responder.store import origin
from responder.store.schema import metadata


class SchemaState(Enum):
    """How the schema of a database compares with the one that this program needs."""

    ABSENT = "empty: its tables will be created on first use"
    CURRENT = "up to date"
    BEHIND = "older than this program"
    AHEAD = "newer than this program"
    FOREIGN = "of another program"


def schema_state(connection: Connection) -> SchemaState:
    """Return the state of the schema. Changes nothing."""
    heads = set(MigrationContext.configure(connection).get_current_heads())
    if not heads:
        # A migration that was undone completely leaves an empty version table.
        tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
        return SchemaState.FOREIGN if tables else SchemaState.ABSENT
    scripts = ScriptDirectory.from_config(_config(connection))
    if heads == set(scripts.get_heads()):
        return SchemaState.CURRENT
    known = {script.revision for script in scripts.walk_revisions()}
    return SchemaState.BEHIND if heads <= known else SchemaState.AHEAD


def check_tables(connection: Connection) -> None:
    """Raise `StoreUnavailable` if a table or a column of the current schema is missing."""
    inspector = inspect(connection)
    for table in metadata.sorted_tables:
        found = (
            {column["name"] for column in inspector.get_columns(table.name)} if inspector.has_table(table.name) else ()
        )
        if missing := [column.name for column in table.columns if column.name not in found]:
            what = f"the column {table.name}.{missing[0]}" if found else f"the table {table.name}"
            raise StoreUnavailable(f"{what} is missing in the database: restore the database from a backup")


def bring_up(connection: Connection, *, upgrade: bool) -> SchemaState:
    """
    Create the schema in an empty database, or upgrade an old one if *upgrade* is set. Returns the state before.

    Raises `StoreOutdated` if the schema is newer than this program, or old and *upgrade* is not set, and
    `StoreUnavailable` if it is the schema of another program.
    """
    state = schema_state(connection)
    match state:
        case SchemaState.CURRENT:
            pass
        case SchemaState.ABSENT:
            command.upgrade(_config(connection), "head")
            origin.note_creation(connection, datetime.now(UTC))
        case SchemaState.BEHIND:
            if not upgrade:
                raise StoreOutdated("the database is older than this program; run: responder db upgrade")
            command.upgrade(_config(connection), "head")
        case SchemaState.AHEAD:
            raise StoreOutdated(
                "this program is older than the database: install the version that last used it, or a newer one"
            )
        case SchemaState.FOREIGN:
            raise StoreUnavailable(
                "the database holds the tables of another program: give this one a database of its own"
            )
        case _:
            assert_never(state)
    return state


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> Path:
    """Return the directory of the steps: it is inside an installed package, and next to the package in a checkout."""
    package = Path(responder.__file__).parent
    installed = package / "migrations"
    return installed if installed.exists() else package.parent / "migrations"
