"""
Grants: which token may write for which hostname, and which challenge name a hostname owns.

It owns it as long as a token that is not revoked is granted it; after that, the next one who mints may have another
name for it, or its name for another hostname.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, insert, or_, select

from responder.access import Grant
from responder.errors import NameTaken, NotFound
from responder.names import Name
from responder.store import journal
from responder.store.audit import Action, AuditEvent, record
from responder.store.schema import grants, hostnames


def give(
    connection: Connection,
    zones: Mapping[int, journal.ZoneRow],
    token_id: UUID,
    wanted: Collection[tuple[Grant, Name]],
    *,
    action: Action,
    at: datetime,
) -> None:
    """Grant *wanted*, as far as it is not granted already. Raises `NameTaken`, or `NotFound` for a zone."""
    zone_ids = {zone.apex: zone.id for zone in zones.values()}
    for _, apex in wanted:
        if apex not in zone_ids:
            raise NotFound(f"there is no zone {apex}")
    began = _claim(connection, wanted, zone_ids)
    has = set(connection.scalars(select(grants.c.hostname_id).where(grants.c.token_id == token_id)))
    ids = hostname_ids(connection, [grant.hostname for grant, _ in wanted])
    if rows := [{"token_id": token_id, "hostname_id": hostname_id} for hostname_id in ids if hostname_id not in has]:
        connection.execute(insert(grants), rows)
    journal.advance_names(connection, zones, began, now=at)
    record(
        connection,
        (AuditEvent(at=at, action=action, token_id=token_id, hostname=grant.hostname) for grant, _ in wanted),
    )


def ended(connection: Connection, hostname_ids: Iterable[int]) -> list[Name]:
    """The challenge names of those hostnames that no token is granted any more."""
    return [
        name
        for chunk in journal.chunks(hostname_ids)
        for name in connection.scalars(
            select(hostnames.c.challenge_name).where(hostnames.c.id.in_(chunk), ~journal.is_granted())
        )
    ]


def hostname_ids(connection: Connection, names: Iterable[Name]) -> list[int]:
    query = select(hostnames.c.id).where(hostnames.c.hostname.in_(bindparam("names", expanding=True)))
    return [
        row_id
        for chunk in journal.chunks(dict.fromkeys(names))
        for row_id in connection.scalars(query, {"names": chunk})
    ]


@dataclass(frozen=True, slots=True)
class _Owner:
    """A hostname and its challenge name; *id* is None while it has no row yet."""

    id: int | None
    hostname: Name
    challenge_name: Name
    granted: bool


def _claim(connection: Connection, wanted: Iterable[tuple[Grant, Name]], zone_ids: dict[Name, int]) -> list[Name]:
    """
    Give every hostname its challenge name and return the names that did not exist before.

    Raises `NameTaken`, naming the hostname that has the name or the name that the hostname has.
    """
    owners = [owner for chunk in journal.chunks(wanted) for owner in _owners(connection, chunk)]
    by_hostname = {owner.hostname: owner for owner in owners}
    by_name = {owner.challenge_name: owner for owner in owners}
    vacated: set[int] = set()
    rows, began = [], []
    for grant, apex in wanted:
        current, other = by_hostname.get(grant.hostname), by_name.get(grant.challenge_name)
        if current is None or current is not other:
            vacated |= _displace(grant, current, other)
            rows.append({"hostname": grant.hostname, "challenge_name": grant.challenge_name, "zone_id": zone_ids[apex]})
        if current is None or current is not other or not current.granted:
            began.append(grant.challenge_name)
        claimed = _Owner(None, grant.hostname, grant.challenge_name, granted=True)
        by_hostname[grant.hostname] = by_name[grant.challenge_name] = claimed
    for chunk in journal.chunks(vacated):
        connection.execute(delete(hostnames).where(hostnames.c.id.in_(chunk)))
    if rows:
        connection.execute(insert(hostnames), rows)
    return began


def _displace(grant: Grant, current: _Owner | None, other: _Owner | None) -> set[int]:
    """The rows that stand in the way of *grant* and that no token needs any more."""
    if current is not None and current.granted:
        raise NameTaken(
            f"{grant.hostname} already publishes at {current.challenge_name}: use --alias {current.challenge_name}, "
            "or revoke the tokens that are granted it first"
        )
    if other is not None and other.granted:
        raise NameTaken(f"{grant.challenge_name} already belongs to {other.hostname}: choose another name with --alias")
    return {owner.id for owner in (current, other) if owner is not None and owner.id is not None}


def _owners(connection: Connection, wanted: Iterable[tuple[Grant, Name]]) -> list[_Owner]:
    """The rows of the hostnames wanted, and of those that have the challenge names wanted."""
    wanted = list(wanted)
    query = select(hostnames, journal.is_granted().label("granted")).where(
        or_(
            hostnames.c.hostname.in_(bindparam("hostnames", expanding=True)),
            hostnames.c.challenge_name.in_(bindparam("names", expanding=True)),
        )
    )
    parameters = {
        "hostnames": [grant.hostname for grant, _ in wanted],
        "names": [grant.challenge_name for grant, _ in wanted],
    }
    return [
        _Owner(row.id, row.hostname, row.challenge_name, row.granted) for row in connection.execute(query, parameters)
    ]
