"""
Where a database comes from: when it was created, and an id that no other has, so that a new one is noticed which stands
in the place of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, select, update

from responder.errors import StoreUnavailable
from responder.store.schema import origin

NEW_FOR = timedelta(days=1)
"""How long a database counts as new: long enough for an administrator to notice."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a database is known by; *created_at* is None for one that is older than this record."""

    id: UUID
    created_at: datetime | None

    def condition(self, now: datetime) -> str:
        """Something to report of a database that was created less than `NEW_FOR` before *now*; "ok" for any other."""
        if self.created_at is None or now - self.created_at >= NEW_FOR:
            return "ok"
        return (
            f"new: it was created at {self.created_at:%Y-%m-%dT%H:%M:%SZ}, and what another database held is not in it"
        )


def find(connection: Connection) -> Origin:
    """The record of this database. Raises `StoreUnavailable` if it has lost it."""
    row = connection.execute(select(origin)).first()
    if row is None:
        raise StoreUnavailable("the database has lost its record of origin: restore it from a backup")
    return Origin(row.id, row.created_at)


def check(connection: Connection, known: Origin) -> None:
    """Raise `StoreUnavailable` if this is not the database that is *known*."""
    if find(connection) != known:
        raise StoreUnavailable(
            "another database is in the place of the one in use: put it back, or restart the service"
        )


def note_creation(connection: Connection, now: datetime) -> None:
    """Its tables were just made."""
    connection.execute(update(origin).values(created_at=now))
