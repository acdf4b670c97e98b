"""
Databases as an acme-dns server of version 1.x or 2.x leaves them, of either kind that it knows: its tables, and rows
as its Go drivers write them. With SQLite the password hash is a blob, in a column that was declared as text.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import make_url

from tests.support.postgres import PostgresServer

SCHEMA = """
CREATE TABLE acmedns (Name TEXT, Value TEXT);
CREATE TABLE records (
    Username TEXT UNIQUE NOT NULL PRIMARY KEY,
    Password TEXT UNIQUE NOT NULL,
    Subdomain TEXT UNIQUE NOT NULL,
    AllowFrom TEXT
);
CREATE TABLE txt ({rowid} Subdomain TEXT NOT NULL, Value TEXT NOT NULL DEFAULT '', LastUpdate INT);
INSERT INTO acmedns (Name, Value) VALUES ('db_version', '1');
"""

SALT = "$2a$10$zlGHoSbCqQdWcHbFJhkHk."
"""How every password hash here begins; what follows, 31 characters, is the hash of nothing."""


@dataclass
class AcmeDns:
    """The database of an acme-dns server; *url* is what its configuration has as `connection`."""

    url: str

    def __post_init__(self) -> None:
        for statement in SCHEMA.format(rowid="rowid SERIAL," if self.is_postgresql else "").split(";"):
            if statement.strip():
                self.execute(statement)

    @property
    def is_postgresql(self) -> bool:
        return self.url.startswith("postgres")

    def register(
        self, *values: tuple[str, int], allow_from: str | None = "[]", password: str | None = None, **columns: str
    ) -> tuple[str, str]:
        """An account with *values*, of these moments, and empty ones up to two; returns user name and subdomain."""
        username, subdomain = columns.get("username", str(uuid4())), columns.get("subdomain", str(uuid4()))
        hashed = password if password is not None else SALT + uuid4().hex[:31]
        self.execute(
            "INSERT INTO records (Username, Password, Subdomain, AllowFrom) VALUES ($1, $2, $3, $4)",
            username,
            hashed if self.is_postgresql else hashed.encode(),
            subdomain,
            allow_from,
        )
        for value, at in (*values, ("", 0), ("", 0))[: max(2, len(values))]:
            self.execute("INSERT INTO txt (Subdomain, Value, LastUpdate) VALUES ($1, $2, $3)", subdomain, value, at)
        return username, subdomain

    def execute(self, statement: str, *arguments: Any) -> None:
        if self.is_postgresql:
            asyncio.run(self._execute(statement, arguments))
            return
        with closing(sqlite3.connect(self.url)) as database, database:
            database.execute(statement.replace("$", "?"), arguments)

    async def _execute(self, statement: str, arguments: Sequence[Any]) -> None:
        url = make_url(self.url)
        connection = await asyncpg.connect(host=str(url.query["host"]), user=url.username, database=url.database)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def acme_dns(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AcmeDns]:
    """An empty one of each kind."""
    if request.param == "sqlite":
        yield AcmeDns(str(tmp_path / "acme-dns.db"))
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.database() as url:
            yield AcmeDns(url.replace("postgresql+asyncpg", "postgres"))
