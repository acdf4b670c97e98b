"""Which database a URL names, and whether it has our schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from responder.errors import StoreUnavailable
from responder.store import migration
from responder.store.database import Database
from responder.store.migration import SchemaState
from responder.store.postgresql import PostgreSQL
from responder.store.sqlite import SQLite


def connect(url: str) -> Database:
    """Return the database that *url* names; connections are made when they are needed. Raises `StoreUnavailable`."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        # The text of the exception would show the URL, and with it the password.
        backend = ""
    if backend == "sqlite":
        return SQLite(parsed)
    if backend == "postgresql":
        return PostgreSQL(parsed)
    raise StoreUnavailable(
        "database.url is not the URL of a supported database: write sqlite+aiosqlite:////absolute/path.db "
        "or postgresql+asyncpg://user@host/name"
    )


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Database]:
    """Yield the database that *url* names, and close it afterwards."""
    database = connect(url)
    try:
        yield database
    finally:
        await database.close()


async def schema_state(database: Database) -> SchemaState:
    """Return the state of the schema, also if there is no database yet. Changes nothing."""
    return await database.read(migration.schema_state) if await database.exists() else SchemaState.ABSENT
