"""
Inserting rows that another process may insert at the same moment.

SQLite and PostgreSQL have the same statement for it, which SQLAlchemy offers separately for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an `INSERT` into *table* that can have an `ON CONFLICT` clause."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def insert_if_absent(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert *row* unless *table* has a row with the same unique key. Return whether it was inserted."""
    insert = insert_into(connection, table).values(**row).on_conflict_do_nothing()
    return connection.execute(insert).rowcount == 1
