"""
Grants: which token may write for which hostname, and which challenge name a hostname owns.

It owns it as long as a token that is not revoked is granted it; after that, the next one who mints may have another
name for it, or its name for another hostname.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, insert, or_, select

from responder.errors import NameTaken, NotFound
from responder.names import Name
from responder.store import journal, schema
from responder.store.audit import Action, AuditEvent, record
from responder.store.schema import grants, hostnames
from responder.tokens.token import Grant


@dataclass(frozen=True, slots=True)
class Wanted:
    """A grant that a token is to have, and the apex of the zone that its challenge name is in."""

    token_id: UUID
    grant: Grant
    apex: Name


def give(
    connection: Connection,
    zones: Mapping[int, journal.ZoneRow],
    wanted: Collection[Wanted],
    *,
    action: Action,
    at: datetime,
) -> None:
    """Grant what is *wanted*, as far as it is not granted already. Raises `NameTaken`, or `NotFound` for a zone."""
    zone_ids = {zone.apex: zone.id for zone in zones.values()}
    for each in wanted:
        if each.apex not in zone_ids:
            raise NotFound(f"there is no zone {each.apex}")
    began = _claim(connection, wanted, zone_ids)
    ids = hostname_ids(connection, (each.grant.hostname for each in wanted))
    rows = {(each.token_id, ids[each.grant.hostname]) for each in wanted} - _held(connection, wanted)
    if rows:
        connection.execute(
            insert(grants), [{"token_id": token_id, "hostname_id": hostname_id} for token_id, hostname_id in rows]
        )
    journal.advance_names(connection, zones, began, now=at)
    record(
        connection,
        (AuditEvent(at=at, action=action, token_id=each.token_id, hostname=each.grant.hostname) for each in wanted),
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


def owned(connection: Connection, names: Iterable[Name]) -> dict[Name, tuple[Grant, Name]]:
    """The challenge names that some of these hostnames own, with the apexes of their zones."""
    query = (
        select(hostnames.c.hostname, hostnames.c.challenge_name, schema.zones.c.apex)
        .join(schema.zones, schema.zones.c.id == hostnames.c.zone_id)
        .where(hostnames.c.hostname.in_(bindparam("names", expanding=True)), journal.is_granted())
    )
    return {
        row.hostname: (Grant(hostname=row.hostname, challenge_name=row.challenge_name), row.apex)
        for chunk in journal.chunks(dict.fromkeys(names))
        for row in connection.execute(query, {"names": chunk})
    }


def hostname_ids(connection: Connection, names: Iterable[Name]) -> dict[Name, int]:
    """The row ids of those hostnames that have one."""
    query = select(hostnames.c.hostname, hostnames.c.id).where(
        hostnames.c.hostname.in_(bindparam("names", expanding=True))
    )
    return {
        row.hostname: row.id
        for chunk in journal.chunks(dict.fromkeys(names))
        for row in connection.execute(query, {"names": chunk})
    }


def _held(connection: Connection, wanted: Iterable[Wanted]) -> set[tuple[UUID, int]]:
    """What the tokens are granted already."""
    query = select(grants.c.token_id, grants.c.hostname_id).where(
        grants.c.token_id.in_(bindparam("token_ids", expanding=True))
    )
    return {
        (row.token_id, row.hostname_id)
        for chunk in journal.chunks(dict.fromkeys(each.token_id for each in wanted))
        for row in connection.execute(query, {"token_ids": chunk})
    }


@dataclass(frozen=True, slots=True)
class _Owner:
    """A hostname and its challenge name; *id* is None while it has no row yet."""

    id: int | None
    hostname: Name
    challenge_name: Name
    granted: bool


def _claim(connection: Connection, wanted: Iterable[Wanted], zone_ids: dict[Name, int]) -> list[Name]:
    """
    Give every hostname its challenge name and return the names that did not exist before.

    Raises `NameTaken`, naming the hostname that has the name or the name that the hostname has.
    """
    owners = [owner for chunk in journal.chunks(each.grant for each in wanted) for owner in _owners(connection, chunk)]
    by_hostname = {owner.hostname: owner for owner in owners}
    by_name = {owner.challenge_name: owner for owner in owners}
    vacated: set[int] = set()
    rows, began = [], []
    for each in wanted:
        grant = each.grant
        current, other = by_hostname.get(grant.hostname), by_name.get(grant.challenge_name)
        if current is None or current is not other:
            vacated |= _displace(grant, current, other)
            rows.append(
                {"hostname": grant.hostname, "challenge_name": grant.challenge_name, "zone_id": zone_ids[each.apex]}
            )
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


def _owners(connection: Connection, wanted: Sequence[Grant]) -> list[_Owner]:
    """The rows of the hostnames wanted, and of those that have the challenge names wanted."""
    query = select(hostnames, journal.is_granted().label("granted")).where(
        or_(
            hostnames.c.hostname.in_(bindparam("hostnames", expanding=True)),
            hostnames.c.challenge_name.in_(bindparam("names", expanding=True)),
        )
    )
    parameters = {
        "hostnames": [grant.hostname for grant in wanted],
        "names": [grant.challenge_name for grant in wanted],
    }
    return [
        _Owner(row.id, row.hostname, row.challenge_name, row.granted) for row in connection.execute(query, parameters)
    ]
