"""
The origin of a database: when it was created, a unique id, and its timeline. The service uses it to notice that another
database has taken the place of its own, or that a standby server has become the primary.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, case, func, literal, select, update

from responder.errors import StoreMoved, StoreUnavailable
from responder.store.schema import origin

NEW_FOR = timedelta(days=1)
"""How long a database counts as new: long enough for an administrator to notice it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """
    The id of a database, and when it was created; None if it was created before this was recorded.

    *timeline* is the one of PostgreSQL, in hexadecimal digits. A standby server that becomes the primary begins a later
    one, which may lack the last commits of the one before. SQLite has no timeline, and neither has a standby: "".
    """

    id: UUID
    created_at: datetime | None
    timeline: str = ""

    def condition(self, now: datetime) -> str:
        """Return a text to report if the database was created less than `NEW_FOR` before *now*, otherwise "ok"."""
        if self.created_at is None or now - self.created_at >= NEW_FOR:
            return "ok"
        return f"new: it was created at {self.created_at:%Y-%m-%dT%H:%M:%SZ}, and has no data of an earlier database"


def find(connection: Connection) -> Origin:
    timeline = _TIMELINE if connection.dialect.name == "postgresql" else literal("")
    row = connection.execute(select(origin.c.id, origin.c.created_at, timeline.label("timeline"))).first()
    if row is None:
        raise StoreUnavailable("the row of the table origin is missing: restore the database from a backup")
    return Origin(row.id, row.created_at, row.timeline)


def check(connection: Connection, known: Origin) -> None:
    """
    Raise `StoreUnavailable` unless this is the database with the origin *known*, or if this is an old primary server of
    it. Raise `StoreMoved` if a standby server has become the primary since then.
    """
    found = find(connection)
    if (found.id, found.created_at) != (known.id, known.created_at):
        raise StoreUnavailable(
            "another database has taken the place of the one in use: put that one back, or restart the service"
        )
    if known.timeline and "" < found.timeline < known.timeline:
        raise StoreUnavailable("the server of the database is one that another has replaced: stop it")
    if found.timeline > known.timeline:
        raise StoreMoved("another server has taken over the database: try again")


def note_creation(connection: Connection, now: datetime) -> None:
    """Store when the tables were created."""
    connection.execute(update(origin).values(created_at=now))


_TIMELINE: ColumnElement[str] = case(
    (func.pg_is_in_recovery(), ""),
    else_=func.substr(func.pg_walfile_name(func.pg_current_wal_lsn()), 1, 8),
)
"""The first 8 digits of the name of a file of PostgreSQL's log are its timeline."""
