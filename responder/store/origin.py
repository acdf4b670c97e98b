"""
The origin of a database: when it was created, and a unique id. The service uses it to notice that another database has
taken the place of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, select, update

from responder.errors import StoreUnavailable
from responder.store.schema import origin

NEW_FOR = timedelta(days=1)
"""How long a database counts as new: long enough for an administrator to notice it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The id of a database, and when it was created; None if it was created before this was recorded."""

    id: UUID
    created_at: datetime | None

    def condition(self, now: datetime) -> str:
        """Return a text to report if the database was created less than `NEW_FOR` before *now*, otherwise "ok"."""
        if self.created_at is None or now - self.created_at >= NEW_FOR:
            return "ok"
        return f"new: it was created at {self.created_at:%Y-%m-%dT%H:%M:%SZ}, and has no data of an earlier database"


def find(connection: Connection) -> Origin:
    row = connection.execute(select(origin)).first()
    if row is None:
        raise StoreUnavailable("the row of the table origin is missing: restore the database from a backup")
    return Origin(row.id, row.created_at)


def check(connection: Connection, known: Origin) -> None:
    """Raise `StoreUnavailable` unless this is the database with the origin *known*."""
    if find(connection) != known:
        raise StoreUnavailable(
            "another database has taken the place of the one in use: put that one back, or restart the service"
        )


def note_creation(connection: Connection, now: datetime) -> None:
    """Store when the tables were created."""
    connection.execute(update(origin).values(created_at=now))
