"""
Reads the database of an acme-dns server, version 1.x or 2.x, SQLite or PostgreSQL. It is never written.

Rows are returned as they are, and `responder.cli.takeover` interprets them. acme-dns may keep running meanwhile,
because each read is short.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Self

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    func,
    inspect,
    literal,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError

from responder.errors import Invalid
from responder.store.database import Database
from responder.store.postgresql import PostgreSQL
from responder.store.sqlite import SQLite

CHUNK = 1000
"""
Accounts read at a time. They are few enough that neither server waits long for the other, and many enough that `txt` is
read rarely: databases of acme-dns before 2026 have no index for it, so each read goes through the whole table.
"""

VERSION = "1"
"""The version of acme-dns's tables, which has not changed since before its version 1.0."""

_ARGUMENT = "DATABASE-URL"

_SURROGATE = re.compile(r"[\ud800-\udfff]")

_metadata = MetaData()
_version = Table("acmedns", _metadata, Column("name", Text), Column("value", Text))
_records = Table(
    "records",
    _metadata,
    Column("username", Text),
    Column("password"),  # SQLite has octets in this column, as Go's drivers write them, PostgreSQL has text
    Column("subdomain", Text),
    Column("allowfrom", Text),
)
_txt = Table("txt", _metadata, Column("subdomain", Text), Column("value", Text), Column("lastupdate", Integer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One account. *values* are its values that are not empty, newest first, each with its time in seconds since 1970.

    Any column of SQLite may hold octets instead of its declared type, or text that is not UTF-8. Octets that are not
    UTF-8 become surrogates (PEP 383).
    """

    username: str | bytes
    password: str | bytes
    subdomain: str | bytes
    allow_from: str | bytes | None
    values: tuple[tuple[str | bytes, int], ...]


class AcmeDnsDatabase:
    """An open database of acme-dns. Get one from `AcmeDnsDatabase.open`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str) -> Self:
        """
        Open the database at *url*, which may also be the path of a file.

        Raises `Invalid` if it is not a database of acme-dns, and `StoreUnavailable` if it does not answer.
        """
        database = _database(url)
        try:
            await database.read(_check)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def count(self) -> int:
        """Return the number of accounts; it may change while they are read."""
        return await self._database.read(_count)

    async def rows(self) -> AsyncGenerator[list[Row], None]:
        """Yield all accounts, up to `CHUNK` at a time. Raises `StoreUnavailable`."""
        after: str | bytes = ""
        while rows := await self._database.read(_chunk, after):
            yield rows
            after = rows[-1].username

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()


def _database(text: str) -> Database:
    url = _parse(text)
    if url.get_backend_name() == "sqlite":
        if not os.path.isfile(url.database or ""):  # noqa: PTH113  # pathlib raises in a directory without permission
            raise Invalid(f"there is no readable file {url.database}: name the SQLite database of acme-dns")
        return SQLite(url, setting=_ARGUMENT, read_only=True)
    return PostgreSQL(url, setting=_ARGUMENT)


def _parse(text: str) -> URL:
    """
    Parse a URL in the form of acme-dns's `connection`, or in our form.

    Raises `Invalid`, with a text that does not show the password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator and not re.search(r"\b(host|dbname|user|password)=", text):
        return URL.create("sqlite", database=text)
    try:
        url = make_url(f"{scheme.partition('+')[0].removesuffix('3')}://{rest}")
    except (ArgumentError, ValueError):
        url = URL.create("none")
    if url.drivername == "sqlite" and url.database:
        if url.query:
            raise Invalid(
                f'{_ARGUMENT} has a "?" after the path, but SQLite takes no options here: remove it and what follows'
            )
        return url
    if url.drivername in ("postgres", "postgresql"):
        # The option that libpq calls sslmode is called ssl by asyncpg.
        options = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
        return url.set(drivername="postgresql", query=options)
    raise Invalid(
        f"{_ARGUMENT} is not for a database that acme-dns supports: name the file of an SQLite database, "
        "or write postgres://USER@HOST/DATABASE"
    )


def _check(connection: Connection) -> None:
    """Raise `Invalid` unless the tables are those of acme-dns, in a supported version."""
    found = inspect(connection)
    tables = set(found.get_table_names())
    for table in _metadata.tables.values():
        columns = {each["name"].lower() for each in found.get_columns(table.name)} if table.name in tables else set()
        if not columns.issuperset(table.c.keys()):
            raise Invalid(
                f"it is not a database of acme-dns, because the table {table.name} is missing or different: "
                "name the database in the [database] section of acme-dns's configuration"
            )
    version = connection.scalar(select(_version.c.value).where(_version.c.name == "db_version")) or "0"
    if version == "0":
        raise Invalid("its tables are from before acme-dns 1.0: start a newer acme-dns on them once, which fixes that")
    if version != VERSION:
        raise Invalid("its tables are from an acme-dns that is newer than the supported versions (1.x and 2.x)")


def _count(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(_records)) or 0


def _chunk(connection: Connection, after: str | bytes) -> list[Row]:
    query = select(_records).where(_records.c.username > _bound(after)).order_by(_records.c.username).limit(CHUNK)
    records = connection.execute(query).all()
    values = _values(connection, [record.subdomain for record in records if _is_text(record.subdomain)])
    return [
        Row(
            username=record.username,
            password=record.password,
            subdomain=record.subdomain,
            allow_from=record.allowfrom,
            values=tuple(values[record.subdomain]),
        )
        for record in records
    ]


def _is_text(column: str | bytes) -> bool:
    """Return whether it can be a parameter of a statement: octets and UTF-8 can, other text cannot."""
    return isinstance(column, bytes) or not _SURROGATE.search(column)


def _bound(column: str | bytes) -> ColumnElement[str]:
    """Return *column* for a comparison. Text that is not UTF-8 is sent to SQLite as octets, and becomes text there."""
    if isinstance(column, bytes) or _is_text(column):
        return literal(column, Text)
    return cast(literal(column.encode(errors="surrogateescape"), LargeBinary), Text)


def _values(
    connection: Connection, subdomains: Iterable[str | bytes]
) -> defaultdict[str | bytes, list[tuple[str | bytes, int]]]:
    query = (
        select(_txt)
        .where(_txt.c.subdomain.in_(bindparam("names", expanding=True, type_=Text)), _txt.c.value != "")
        .order_by(_txt.c.lastupdate.desc())
    )
    values: defaultdict[str | bytes, list[tuple[str | bytes, int]]] = defaultdict(list)
    for row in connection.execute(query, {"names": list(subdomains)}):
        values[row.subdomain].append((row.value, row.lastupdate if isinstance(row.lastupdate, int) else 0))
    return values
