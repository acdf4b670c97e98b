"""
Which static records go with the serial of a zone: a secondary or a resolver that has a serial believes that it has the
zone, so what the configuration puts into the zone must not change under it.

Nodes have configurations of their own, which differ while they are changed one after the other, and perhaps for longer.
So it is known of each zone whether all nodes serve the same records with its present serial.
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
    """
    A node begins to serve zones with static records of these *digests*: where it is not known that all others serve the
    same with the present serial, there is a new one from now on.
    """
    locked = journal.lock_zones(connection)
    if missing := digests.keys() - {zone.apex for zone in locked.values()}:
        raise NotFound(f"there is no zone {min(map(str, missing))}")
    if differing := _differing(connection, digests):
        connection.execute(_SET, [{"zone": zone_id, "digest": digests[apex]} for zone_id, apex in differing.items()])
    # Other nodes notice it by the apex in the journal.
    return journal.advance(connection, locked, {zone_id: {apex: None} for zone_id, apex in differing.items()}, now=now)


def compare(connection: Connection, digests: Mapping[Name, str]) -> None:
    """A node goes on with these: where others differ, the next one that begins must not rely on the serial."""
    journal.lock_zones(connection)
    if differing := _differing(connection, digests):
        connection.execute(_SET, [{"zone": zone_id, "digest": None} for zone_id in differing])


def _differing(connection: Connection, digests: Mapping[Name, str]) -> dict[int, Name]:
    """The zones, by row id, of which other digests are known, or none."""
    rows = connection.execute(select(zones.c.id, zones.c.apex, zones.c.static))
    return {row.id: row.apex for row in rows if row.apex in digests and digests[row.apex] != row.static}
