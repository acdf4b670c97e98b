"""
Grants: which token may write for which hostname, and which challenge name a hostname owns.

A hostname owns its challenge name as long as a token that is not revoked has a grant for it. After that, a new grant
may give the hostname another name. Several hostnames may share a name, but then only one token may have grants for
them, because a token that can write the values of one hostname can write those of the others. A token that has expired
or is temporary counts only for a hostname that no other token covers, so it can be replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, case, delete, distinct, func, insert, literal, or_, select

from responder.errors import NameTaken, NotFound
from responder.names import Name
from responder.store import journal, schema
from responder.store.audit import AuditAction, AuditEvent, record
from responder.store.schema import Instant, grants, hostnames, tokens
from responder.tokens.serving import Serving
from responder.tokens.token import TEMPORARY, Grant


@dataclass(frozen=True, slots=True)
class Wanted:
    """A grant that a token should get."""

    token_id: UUID
    grant: Grant


@dataclass(frozen=True, slots=True)
class UnservedZone:
    """A zone of the database that is not served here, with the number of *hostnames* and *tokens* that have grants."""

    apex: Name
    hostnames: int
    tokens: int


def give(
    connection: Connection,
    zones: Mapping[int, journal.ZoneRow],
    wanted: Collection[Wanted],
    *,
    action: AuditAction,
    at: datetime,
    by: str | None,
) -> None:
    """
    Store the grants in *wanted* that are not stored yet, and note all of them in the audit as *action* of *by*.

    Raises `NameTaken`, or `NotFound` for a zone that does not exist.
    """
    zone_ids = {zone.apex: zone.id for zone in zones.values()}
    for each in wanted:
        if each.grant.apex not in zone_ids:
            raise NotFound(f"there is no zone {each.grant.apex}")
    began = _claim(connection, wanted, zone_ids)
    ids = hostname_ids(connection, (each.grant.hostname for each in wanted))
    rows = {(each.token_id, ids[each.grant.hostname]) for each in wanted} - _held(connection, wanted)
    if rows:
        connection.execute(
            insert(grants), [{"token_id": token_id, "hostname_id": hostname_id} for token_id, hostname_id in rows]
        )
    _check_sharing(connection, wanted, at)
    journal.advance_names(connection, zones, began, now=at)
    record(
        connection,
        (
            AuditEvent(at=at, action=action, token_id=each.token_id, hostname=each.grant.hostname, client=by)
            for each in wanted
        ),
    )


def ended(connection: Connection, hostname_ids: Iterable[int]) -> list[Name]:
    """Return those challenge names of the hostnames for which there is no grant any more."""
    found: list[Name] = []
    for chunk in journal.chunks(hostname_ids):
        query = select(hostnames.c.challenge_name)
        names = dict.fromkeys(connection.scalars(query.where(hostnames.c.id.in_(chunk))))
        granted = set(connection.scalars(query.where(hostnames.c.challenge_name.in_(names), journal.is_granted())))
        found += [name for name in names if name not in granted]
    return found


def owned(connection: Connection, names: Iterable[Name]) -> dict[Name, Grant]:
    query = (
        select(hostnames.c.hostname, hostnames.c.challenge_name, schema.zones.c.apex)
        .join(schema.zones, schema.zones.c.id == hostnames.c.zone_id)
        .where(hostnames.c.hostname.in_(bindparam("names", expanding=True)), journal.is_granted())
    )
    return {
        row.hostname: _grant(row)
        for chunk in journal.chunks(dict.fromkeys(names))
        for row in connection.execute(query, {"names": chunk})
    }


def unserved(connection: Connection, serving: Serving, *, now: datetime) -> list[UnservedZone]:
    query = (
        select(
            schema.zones.c.apex,
            func.count(distinct(hostnames.c.id)).label("hostnames"),
            func.count(distinct(tokens.c.id)).label("tokens"),
        )
        .join(hostnames, hostnames.c.zone_id == schema.zones.c.id)
        .join(grants, grants.c.hostname_id == hostnames.c.id)
        .join(tokens, tokens.c.id == grants.c.token_id)
        .where(tokens.c.revoked_at.is_(None), tokens.c.expires_at.is_(None) | (tokens.c.expires_at > now))
        .group_by(schema.zones.c.apex)
        .order_by(schema.zones.c.apex)
    )
    rows = connection.execute(query)
    return [UnservedZone(row.apex, row.hostnames, row.tokens) for row in rows if row.apex not in serving.apexes]


def hostname_ids(connection: Connection, names: Iterable[Name]) -> dict[Name, int]:
    """Return the row ids of the hostnames that have a row."""
    query = select(hostnames.c.hostname, hostnames.c.id).where(
        hostnames.c.hostname.in_(bindparam("names", expanding=True))
    )
    return {
        row.hostname: row.id
        for chunk in journal.chunks(dict.fromkeys(names))
        for row in connection.execute(query, {"names": chunk})
    }


def _held(connection: Connection, wanted: Iterable[Wanted]) -> set[tuple[UUID, int]]:
    """Return the grants that the tokens have already, as pairs of a token id and a hostname's row id."""
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
    """A hostname with its challenge name and zone. *id* is None if it has no row yet."""

    id: int | None
    grant: Grant
    granted: bool


def _claim(connection: Connection, wanted: Iterable[Wanted], zone_ids: dict[Name, int]) -> list[Name]:
    """
    Give every hostname its challenge name, and return the names that did not exist before.

    Raises `NameTaken` if the hostname has another challenge name.
    """
    owners = [owner for chunk in journal.chunks(each.grant for each in wanted) for owner in _owners(connection, chunk)]
    by_hostname = {owner.grant.hostname: owner for owner in owners}
    by_name: defaultdict[Name, list[_Owner]] = defaultdict(list)
    for owner in owners:
        by_name[owner.grant.challenge_name].append(owner)
    vacated: set[int] = set()
    rows, began = [], []
    for each in wanted:
        grant = each.grant
        current, others = by_hostname.get(grant.hostname), by_name[grant.challenge_name]
        if not any(owner.granted for owner in others):
            began.append(grant.challenge_name)
        if current is None or current.grant != grant:
            for owner in _displaced(grant, current, others):
                by_hostname.pop(owner.grant.hostname)
                by_name[owner.grant.challenge_name].remove(owner)
                if owner.id is not None:
                    vacated.add(owner.id)
            rows.append(
                {
                    "hostname": grant.hostname,
                    "challenge_name": grant.challenge_name,
                    "zone_id": zone_ids[grant.apex],
                }
            )
        by_hostname[grant.hostname] = claimed = _Owner(None, grant, granted=True)
        others.append(claimed)
    for chunk in journal.chunks(vacated):
        connection.execute(delete(hostnames).where(hostnames.c.id.in_(chunk)))
    if rows:
        connection.execute(insert(hostnames), rows)
    return began


def _displaced(grant: Grant, current: _Owner | None, others: Iterable[_Owner]) -> list[_Owner]:
    """
    Return the owners without a grant that *grant* replaces: *current*, the row of its hostname, and those of its name
    in another zone. Raises `NameTaken` if one of them has a grant.
    """
    if current is not None and current.granted:
        name, apex = current.grant.challenge_name, current.grant.apex
        still = "" if apex == grant.apex else " if that zone is in the configuration"
        raise NameTaken(
            f"{grant.hostname} already has the challenge name {name} in the zone {apex}: use --alias {name}{still}, or "
            "first remove the hostname from its tokens (see responder token list, token deny)"
        )
    elsewhere = [owner for owner in others if owner.grant.apex != grant.apex and owner is not current]
    if granted := [owner.grant.hostname for owner in elsewhere if owner.granted]:
        raise _taken(grant.challenge_name, min(granted))
    return elsewhere if current is None else [current, *elsewhere]


def _check_sharing(connection: Connection, wanted: Iterable[Wanted], at: datetime) -> None:
    """
    Raise `NameTaken` if hostnames of several tokens share one of the challenge names in *wanted*.

    For each hostname, only its tokens of the highest rank count: those that last, then expired, then temporary ones.
    """
    temporary = tokens.c.description.in_(TEMPORARY) & tokens.c.expires_at.is_not(None)
    expired = tokens.c.expires_at <= literal(at, Instant)
    rank = case((temporary, 0), (expired, 1), else_=2).label("rank")
    query = (
        select(hostnames.c.challenge_name, hostnames.c.hostname, grants.c.token_id, rank)
        .join(grants, grants.c.hostname_id == hostnames.c.id)
        .join(tokens, tokens.c.id == grants.c.token_id)
        .where(hostnames.c.challenge_name.in_(bindparam("names", expanding=True)), tokens.c.revoked_at.is_(None))
        .order_by(rank, hostnames.c.challenge_name, hostnames.c.hostname)
    )
    mine = {each.grant.challenge_name: each for each in wanted}
    for chunk in journal.chunks(mine):
        holders: defaultdict[Name, dict[Name, set[UUID]]] = defaultdict(dict)
        found = connection.execute(query, {"names": chunk})
        for (_, name, hostname), rows in groupby(found, key=lambda row: (row.rank, row.challenge_name, row.hostname)):
            holders[name][hostname] = {row.token_id for row in rows}  # a higher rank replaces a lower one
        for name, by_hostname in holders.items():
            if len(by_hostname) > 1 and len(set[UUID]().union(*by_hostname.values())) > 1:
                raise _taken(name, min(by_hostname.keys() - {mine[name].grant.hostname}))


def _taken(name: Name, hostname: Name) -> NameTaken:
    return NameTaken(
        f"{name} already belongs to {hostname}: choose another name with --alias (hostnames can share a name only if "
        "no more than one token covers them)"
    )


def _owners(connection: Connection, wanted: Sequence[Grant]) -> list[_Owner]:
    """Return the rows that have one of the hostnames or one of the challenge names in *wanted*."""
    query = (
        select(hostnames, schema.zones.c.apex, journal.is_granted().label("granted"))
        .join(schema.zones, schema.zones.c.id == hostnames.c.zone_id)
        .where(
            or_(
                hostnames.c.hostname.in_(bindparam("hostnames", expanding=True)),
                hostnames.c.challenge_name.in_(bindparam("names", expanding=True)),
            )
        )
    )
    parameters = {
        "hostnames": [grant.hostname for grant in wanted],
        "names": [grant.challenge_name for grant in wanted],
    }
    return [_Owner(row.id, _grant(row), row.granted) for row in connection.execute(query, parameters)]


def _grant(row: Row[*tuple[Any, ...]]) -> Grant:
    return Grant(hostname=row.hostname, challenge_name=row.challenge_name, apex=row.apex)
