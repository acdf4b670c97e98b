"""
Zones, their serials, and which names changed at which serial.

Every transaction that changes what DNS shows calls `advance`. A reader that has an older serial gets the current state
of all names that changed since, so it may miss any number of changes in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby, islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, exists, insert, select, update

from responder.dns.zone import Change
from responder.errors import NotFound
from responder.names import Name
from responder.store.schema import challenge_values, changes, grants, hostnames, tokens, zones
from responder.store.upsert import insert_if_absent

T = TypeVar("T")

NameState = tuple[str, ...] | None
"""The values of a name, in order; None if the name does not exist."""

CHUNK = 500
"""Names in one statement. It limits the memory, and the number of parameters of the statement."""

MAX_JOURNAL = 100_000
"""Journal rows that are kept for each zone: many hours at any normal rate. Readers further behind take a snapshot."""


# Statements that must be quick are built once: building one takes as long as running it.
_LOCK = select(zones.c.id, zones.c.apex, zones.c.serial).order_by(zones.c.id).with_for_update()
_RAISE = update(zones).where(zones.c.id == bindparam("zone")).values(serial=bindparam("serial"))
_JOURNAL = insert(changes)


@dataclass(frozen=True, slots=True)
class ZoneRow:
    """A row of `zones`."""

    id: int
    apex: Name
    serial: int


def lock_zones(connection: Connection) -> dict[int, ZoneRow]:
    """
    Lock all zones and return them by row id. No other transaction changes anything in them until this one ends.

    They are always locked in the same order, so that two writers cannot wait for each other.
    """
    return {row.id: ZoneRow(row.id, row.apex, row.serial) for row in connection.execute(_LOCK)}


def advance(
    connection: Connection,
    locked: Mapping[int, ZoneRow],
    states: Mapping[int, Mapping[Name, NameState]],
    *,
    now: datetime,
) -> list[Change]:
    """
    Give each zone that has names in *states* a new serial, and write the names to the journal. Returns the changes.

    A serial is at least the time in seconds since 1970, so it grows even after an old backup was restored.
    """
    news = [
        Change(
            apex=locked[zone_id].apex,
            previous=locked[zone_id].serial,
            serial=max(locked[zone_id].serial + 1, int(now.timestamp())),
            names=names,
        )
        for zone_id, names in states.items()
        if names
    ]
    if news:
        ids = {zone.apex: zone.id for zone in locked.values()}
        connection.execute(
            _RAISE,
            [{"zone": ids[change.apex], "serial": change.serial} for change in news],
        )
        connection.execute(
            _JOURNAL,
            [
                {"zone_id": ids[change.apex], "serial": change.serial, "name": name}
                for change in news
                for name in change.names
            ],
        )
    return news


def advance_names(
    connection: Connection, locked: Mapping[int, ZoneRow], names: Iterable[Name], *, now: datetime
) -> list[Change]:
    """Do the same as `advance` for names whose new state is already in the tables."""
    return advance(connection, locked, _states(connection, names), now=now)


def resume(connection: Connection, published: Mapping[Name, int], *, now: datetime) -> list[Change]:
    """
    Raise the serial of each zone above the one that was *published* from an earlier state of this database, so that
    serials never go back. The apex is journaled with its state, so other nodes notice it.
    """
    locked = lock_zones(connection)
    above = {
        zone_id: replace(zone, serial=max(zone.serial, published[zone.apex]))
        for zone_id, zone in locked.items()
        if zone.apex in published
    }
    return mark(connection, locked | above, {zone_id: zone.apex for zone_id, zone in above.items()}, now=now)


def mark(
    connection: Connection, locked: Mapping[int, ZoneRow], apexes: Mapping[int, Name], *, now: datetime
) -> list[Change]:
    """
    Give each zone of *apexes* a new serial for a change other than that of values, and write the apex to the journal
    for it. The state of the apex is in the change, because it may be a challenge name as well.
    """
    states = _states(connection, apexes.values())
    marked = {zone_id: {apex: states.get(zone_id, {}).get(apex)} for zone_id, apex in apexes.items()}
    return advance(connection, locked, marked, now=now)


def missing(connection: Connection, states: Mapping[Name, NameState]) -> list[tuple[Name, str]]:
    """The values in *states* that their names do not hold, in order."""
    held = {name: state for names in _states(connection, states).values() for name, state in names.items()}
    return sorted(
        ((name, value) for name, values in states.items() for value in set(values or ()) - set(held.get(name) or ())),
        key=lambda pair: (str(pair[0]), pair[1]),
    )


def register(connection: Connection, digests: Mapping[Name, str | None], *, now: datetime) -> None:
    known = set(connection.scalars(select(zones.c.apex)))
    serial = int(now.timestamp())
    for apex, digest in digests.items():
        if apex not in known and insert_if_absent(
            connection, zones, {"apex": apex, "serial": serial, "static": digest}
        ):
            zone_id = connection.scalar(select(zones.c.id).where(zones.c.apex == apex))
            # The journal reaches back to this first serial. The apex has no values yet, so nothing changes there.
            connection.execute(_JOURNAL, {"zone_id": zone_id, "serial": serial, "name": apex})


def serials(connection: Connection) -> dict[Name, int]:
    return {row.apex: row.serial for row in connection.execute(select(zones.c.apex, zones.c.serial))}


def changes_since(connection: Connection, apex: Name, serial: int) -> Change | None:
    zone = connection.execute(select(zones.c.id, zones.c.serial).where(zones.c.apex == apex)).first()
    if zone is None:
        raise NotFound(f"there is no zone {apex}")
    if serial == zone.serial:
        return Change(apex=apex, previous=serial, serial=serial, names={})
    # The journal is complete from *serial* on if it contains *serial*. A serial that it does not contain was pruned, or
    # was made by this database before a backup was restored.
    journal = select(changes.c.name).where(changes.c.zone_id == zone.id)
    if connection.execute(journal.where(changes.c.serial == serial).limit(1)).first() is None:
        return None
    names = list(connection.scalars(journal.where(changes.c.serial > serial).distinct()))
    states = _states(connection, names).get(zone.id, {})
    # A name without a row does not exist any more: its hostname may have got another challenge name.
    return Change(apex=apex, previous=serial, serial=zone.serial, names=dict.fromkeys(names) | states)


def snapshot(connection: Connection) -> Iterator[Change]:
    query = select(zones.c.id, zones.c.apex, zones.c.serial)
    by_id = {row.id: ZoneRow(row.id, row.apex, row.serial) for row in connection.execute(query)}
    for zone in by_id.values():
        yield Change(apex=zone.apex, previous=zone.serial, serial=zone.serial, names={})
    after = 0
    while True:
        chunk = (
            select(hostnames.c.id, hostnames.c.zone_id, hostnames.c.challenge_name)
            .where(hostnames.c.id > after, is_granted())
            .order_by(hostnames.c.id)
            .limit(CHUNK)
            .subquery()
        )
        rows = connection.execute(
            select(chunk, challenge_values.c.value)
            .outerjoin(challenge_values, challenge_values.c.challenge_name == chunk.c.challenge_name)
            .order_by(chunk.c.id)
        ).all()
        if not rows:
            return
        after = rows[-1].id
        states: defaultdict[int, dict[Name, NameState]] = defaultdict(dict)
        for (zone_id, name), held in groupby(rows, key=lambda row: (row.zone_id, row.challenge_name)):
            states[zone_id][name] = _in_order(held)  # the same each time for a name that hostnames share
        for zone_id, names in states.items():
            zone = by_id[zone_id]
            yield Change(apex=zone.apex, previous=zone.serial, serial=zone.serial, names=names)


def prune(connection: Connection, limit: int) -> bool:
    """
    Delete the oldest rows of the journal above `MAX_JOURNAL`. The rows of one serial are deleted together.

    At most about *limit* rows of each zone are deleted, so that no present waits long for the writer. Returns whether
    there are more rows to delete.
    """
    more = False
    for zone_id in list(connection.scalars(select(zones.c.id))):
        mine = changes.c.zone_id == zone_id
        serials = select(changes.c.serial).where(mine)
        first_kept = connection.scalar(serials.order_by(changes.c.serial.desc()).offset(MAX_JOURNAL - 1).limit(1))
        if first_kept is not None:
            old = serials.where(changes.c.serial < first_kept).order_by(changes.c.serial)
            last = connection.scalar(old.offset(limit).limit(1))
            more = more or last is not None
            until = first_kept - 1 if last is None else last
            connection.execute(delete(changes).where(mine, changes.c.serial <= until))
    return more


def is_granted() -> ColumnElement[bool]:
    """Return the condition that a row of `hostnames` exists in DNS: a token that is not revoked has a grant for it."""
    return exists(
        select(grants.c.token_id)
        .join(tokens, tokens.c.id == grants.c.token_id)
        .where(grants.c.hostname_id == hostnames.c.id, tokens.c.revoked_at.is_(None))
    )


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield *items* in lists of at most `CHUNK`."""
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _states(connection: Connection, names: Iterable[Name]) -> dict[int, dict[Name, NameState]]:
    """Return the current state of *names* by zone, without the names that no hostname has."""
    states: defaultdict[int, dict[Name, NameState]] = defaultdict(dict)
    query = (
        select(
            hostnames.c.zone_id,
            hostnames.c.challenge_name,
            is_granted().label("granted"),
            challenge_values.c.value,
        )
        .outerjoin(challenge_values, challenge_values.c.challenge_name == hostnames.c.challenge_name)
        .where(hostnames.c.challenge_name.in_(bindparam("names", expanding=True)))
        .order_by(hostnames.c.zone_id, hostnames.c.challenge_name)
    )
    for chunk in chunks(names):
        rows = connection.execute(query, {"names": chunk})
        for (zone_id, name), group in groupby(rows, key=lambda row: (row.zone_id, row.challenge_name)):
            held = list(group)
            states[zone_id][name] = _in_order(held) if any(row.granted for row in held) else None
    return states


def _in_order(rows: Iterable[Row[*tuple[Any, ...]]]) -> tuple[str, ...]:
    # Sorted here, because databases order text differently. Each hostname of a name has its values in rows of its own.
    return tuple(sorted({row.value for row in rows if row.value is not None}))
