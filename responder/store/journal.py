"""
Zones, their serials, and which names changed at which serial.

Whatever changes what the DNS shows goes through `advance`, in the transaction that makes the change. Readers get the
present state of the names that changed since, so a reader that missed some steps loses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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

State = tuple[str, ...] | None
"""The values of a name, in order; None if it does not exist."""

CHUNK = 500
"""Names handled by one statement: bounds memory, and the parameters of a statement."""

MAX_JOURNAL = 100_000
"""Journal rows kept of each zone: many hours at any honest rate. Readers further behind take a snapshot."""


# Statements of the paths that must be quick are made once: building one costs as much as running it.
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
    Every zone by its row id; nobody else changes anything in them until this transaction ends.

    All of them, always in the same order, so that two writers can never wait for each other.
    """
    return {row.id: ZoneRow(row.id, row.apex, row.serial) for row in connection.execute(_LOCK)}


def advance(
    connection: Connection,
    locked: Mapping[int, ZoneRow],
    states: Mapping[int, Mapping[Name, State]],
    *,
    now: datetime,
) -> list[Change]:
    """
    Give each zone that has entries in *states* a new serial, and journal the names in them.

    A serial is never less than the time, so that it moves forward even after an old backup was restored.
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
    """As `advance`, for names whose new state is already in the tables."""
    return advance(connection, locked, _states(connection, names), now=now)


def register(connection: Connection, digests: Mapping[Name, str | None], *, now: datetime) -> None:
    known = set(connection.scalars(select(zones.c.apex)))
    serial = int(now.timestamp())
    for apex, digest in digests.items():
        if apex not in known and insert_if_absent(
            connection, zones, {"apex": apex, "serial": serial, "static": digest}
        ):
            zone_id = connection.scalar(select(zones.c.id).where(zones.c.apex == apex))
            # The journal reaches back to this first serial. The apex is not a challenge name, so nothing changes there.
            connection.execute(_JOURNAL, {"zone_id": zone_id, "serial": serial, "name": apex})


def serials(connection: Connection) -> dict[Name, int]:
    """The serial of each zone."""
    return {row.apex: row.serial for row in connection.execute(select(zones.c.apex, zones.c.serial))}


def changes_since(connection: Connection, apex: Name, serial: int) -> Change | None:
    """
    What became of all names that changed after *serial*; None if the journal cannot tell.

    It can if that very serial is in it. One that is not was pruned, or came from a database that has since been
    replaced by a backup. Raises `NotFound` for a zone without a row.
    """
    zone = connection.execute(select(zones.c.id, zones.c.serial).where(zones.c.apex == apex)).first()
    if zone is None:
        raise NotFound(f"there is no zone {apex}")
    if serial == zone.serial:
        return Change(apex=apex, previous=serial, serial=serial, names={})
    journal = select(changes.c.name).where(changes.c.zone_id == zone.id)
    if connection.execute(journal.where(changes.c.serial == serial).limit(1)).first() is None:
        return None
    names = list(connection.scalars(journal.where(changes.c.serial > serial).distinct()))
    states = _states(connection, names).get(zone.id, {})
    # A hostname whose last token is gone may have handed its challenge name on; then no row speaks of the old one.
    return Change(apex=apex, previous=serial, serial=zone.serial, names=dict.fromkeys(names) | states)


def snapshot(connection: Connection) -> Iterator[Change]:
    """An empty change for each zone, with its serial; then all names that exist, some at a time."""
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
            .outerjoin(challenge_values, challenge_values.c.hostname_id == chunk.c.id)
            .order_by(chunk.c.id)
        ).all()
        if not rows:
            return
        after = rows[-1].id
        states: defaultdict[int, dict[Name, State]] = defaultdict(dict)
        for (zone_id, name), held in groupby(rows, key=lambda row: (row.zone_id, row.challenge_name)):
            states[zone_id][name] = _in_order(held)
        for zone_id, names in states.items():
            zone = by_id[zone_id]
            yield Change(apex=zone.apex, previous=zone.serial, serial=zone.serial, names=names)


def prune(connection: Connection, limit: int) -> bool:
    """
    Forget the oldest part of the journal; the rows of one serial go together or not at all.

    About *limit* rows of each zone go at once, so that no present waits long for the writer. Returns whether more are
    left that should go.
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
    """Whether a row of `hostnames` exists in the DNS: some token that is not revoked is granted it."""
    return exists(
        select(grants.c.token_id)
        .join(tokens, tokens.c.id == grants.c.token_id)
        .where(grants.c.hostname_id == hostnames.c.id, tokens.c.revoked_at.is_(None))
    )


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Some items at a time, as many as one statement should handle."""
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _states(connection: Connection, names: Iterable[Name]) -> dict[int, dict[Name, State]]:
    """The present state of *names*, by zone; nothing about names that no hostname has."""
    states: defaultdict[int, dict[Name, State]] = defaultdict(dict)
    query = (
        select(
            hostnames.c.zone_id,
            hostnames.c.challenge_name,
            is_granted().label("granted"),
            challenge_values.c.value,
        )
        .outerjoin(challenge_values, challenge_values.c.hostname_id == hostnames.c.id)
        .where(hostnames.c.challenge_name.in_(bindparam("names", expanding=True)))
        .order_by(hostnames.c.id)
    )
    for chunk in chunks(names):
        rows = connection.execute(query, {"names": chunk})
        for (zone_id, name), group in groupby(rows, key=lambda row: (row.zone_id, row.challenge_name)):
            held = list(group)
            states[zone_id][name] = _in_order(held) if held[0].granted else None
    return states


def _in_order(rows: Iterable[Row[*tuple[Any, ...]]]) -> tuple[str, ...]:
    # Sorted here: every database has its own idea of the order of text.
    return tuple(sorted(row.value for row in rows if row.value is not None))
