"""
Which static records belong to the serial of a zone. A secondary that has a serial does not transfer the zone again, so
two different sets of static records must not have the same serial.

Each node has its own configuration. They differ while they are changed one after the other, and perhaps for longer. So
the database stores for each zone whether all nodes serve the same static records with its current serial.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from responder.dns.zone import Change
from responder.errors import NotFound
from responder.names import Name
from responder.store import journal
from responder.store.schema import zones

_SET = update(zones).where(zones.c.id == bindparam("zone")).values(static=bindparam("digest"))


def begin(connection: Connection, digests: Mapping[Name, str], *, now: datetime) -> list[Change]:
    locked = journal.lock_zones(connection)
    if missing := digests.keys() - {zone.apex for zone in locked.values()}:
        raise NotFound(f"there is no zone {min(map(str, missing))}")
    if differing := _differing(connection, digests):
        connection.execute(_SET, [{"zone": zone_id, "digest": digests[apex]} for zone_id, apex in differing.items()])
    return journal.mark(connection, locked, differing, now=now)  # the apex in the journal lets other nodes notice it


def compare(connection: Connection, digests: Mapping[Name, str]) -> None:
    journal.lock_zones(connection)
    if differing := _differing(connection, digests):
        connection.execute(_SET, [{"zone": zone_id, "digest": None} for zone_id in differing])


def _differing(connection: Connection, digests: Mapping[Name, str]) -> dict[int, Name]:
    """Return the zones, by row id, whose stored digest is different or missing."""
    rows = connection.execute(select(zones.c.id, zones.c.apex, zones.c.static))
    return {row.id: row.apex for row in rows if row.apex in digests and digests[row.apex] != row.static}
