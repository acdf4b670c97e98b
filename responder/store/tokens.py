"""
Tokens and their grants: the transactions that mint, find and revoke them.

A hostname's row says which challenge name it owns. It owns it as long as a token that is not revoked is granted it;
after that, the next one who mints may have another name for it, or its name for another hostname.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, bindparam, delete, insert, or_, select, update

from responder.access import Digest, Grant, Network, Token
from responder.errors import NameTaken, NotFound
from responder.names import Name
from responder.store import journal
from responder.store.audit import Action, AuditEvent, record
from responder.store.schema import challenge_values, grants, hostnames, tokens
from responder.store.values import remove


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token to be minted. *grants* come with the apex of the zone that each challenge name is in."""

    digest: Digest
    grants: tuple[tuple[Grant, Name], ...]
    created_at: datetime
    id: UUID = field(default_factory=uuid4)
    description: str | None = None
    expires_at: datetime | None = None
    allow_from: tuple[Network, ...] = ()
    account_thumbprint: str | None = None


def mint(connection: Connection, new: NewToken) -> Token:
    """Write *new* down, with its grants; names that nobody was granted before begin to exist."""
    zones = journal.lock_zones(connection)
    zone_ids = {zone.apex: zone.id for zone in zones.values()}
    wanted = dict.fromkeys(new.grants)
    for _, apex in wanted:
        if apex not in zone_ids:
            raise NotFound(f"there is no zone {apex}")
    began = _claim(connection, wanted, zone_ids)
    _insert(connection, new, _hostname_ids(connection, [grant.hostname for grant, _ in wanted]))
    journal.advance_names(connection, zones, began, now=new.created_at)
    record(
        connection,
        (
            AuditEvent(at=new.created_at, action=Action.MINT, token_id=new.id, hostname=grant.hostname)
            for grant, _ in wanted
        ),
    )
    return by_id(connection, new.id)


def find(connection: Connection, digest: Digest) -> Token | None:
    """The token with this digest, whatever its state."""
    # The index leaks by its timing what nobody can use (see `access.digest`); what decides does not.
    for stored, token in _tokens(connection.execute(_BY_DIGEST, {"wanted": digest})):
        if secrets.compare_digest(stored, digest):
            return token
    return None


def by_id(connection: Connection, token_id: UUID) -> Token:
    """The token with this id. Raises `NotFound`."""
    for _, token in _tokens(connection.execute(_TOKENS.where(tokens.c.id == token_id))):
        return token
    raise NotFound("there is no token with that id: see responder token list")


def every(connection: Connection) -> list[Token]:
    """All tokens ever minted, oldest first."""
    return [token for _, token in _tokens(connection.execute(_TOKENS))]


def revoke(connection: Connection, token_id: UUID, *, at: datetime) -> None:
    """End a token, and remove the values that it presented. Once is enough, twice does no harm."""
    zones = journal.lock_zones(connection)
    if by_id(connection, token_id).revoked_at is not None:
        return
    connection.execute(update(tokens).where(tokens.c.id == token_id).values(revoked_at=at))
    mine = connection.execute(
        select(challenge_values.c.id, hostnames.c.challenge_name)
        .join(hostnames, hostnames.c.id == challenge_values.c.hostname_id)
        .where(challenge_values.c.token_id == token_id)
    ).all()
    ended = connection.scalars(
        select(hostnames.c.challenge_name)
        .join(grants, grants.c.hostname_id == hostnames.c.id)
        .where(grants.c.token_id == token_id, ~journal.is_granted())
    ).all()
    remove(connection, (row.id for row in mine))
    touched = dict.fromkeys([*(row.challenge_name for row in mine), *ended])
    journal.advance_names(connection, zones, touched, now=at)
    record(connection, [AuditEvent(at=at, action=Action.REVOKE, token_id=token_id)])


_TOKENS = (
    select(tokens, hostnames.c.hostname, hostnames.c.challenge_name)
    .outerjoin(grants, grants.c.token_id == tokens.c.id)
    .outerjoin(hostnames, hostnames.c.id == grants.c.hostname_id)
    .order_by(tokens.c.created_at, tokens.c.id, hostnames.c.hostname)
)
_BY_DIGEST = _TOKENS.where(tokens.c.digest == bindparam("wanted"))


def _tokens(rows: Iterable[Row[*tuple[Any, ...]]]) -> Iterator[tuple[bytes, Token]]:
    """Tokens with all their grants, and their digests, from the rows of `_TOKENS`."""
    for _, group in groupby(rows, key=lambda row: row.id):
        same = list(group)
        row = same[0]
        granted = (one for one in same if one.hostname is not None)
        yield (
            row.digest,
            Token(
                id=row.id,
                description=row.description,
                grants=tuple(Grant(hostname=one.hostname, challenge_name=one.challenge_name) for one in granted),
                created_at=row.created_at,
                expires_at=row.expires_at,
                last_used_at=row.last_used_at,
                revoked_at=row.revoked_at,
                allow_from=row.allow_from,
                account_thumbprint=row.account_thumbprint,
            ),
        )


def _insert(connection: Connection, new: NewToken, hostname_ids: Iterable[int]) -> None:
    connection.execute(
        insert(tokens),
        {
            "id": new.id,
            "digest": new.digest,
            "description": new.description,
            "created_at": new.created_at,
            "expires_at": new.expires_at,
            "allow_from": new.allow_from,
            "account_thumbprint": new.account_thumbprint,
        },
    )
    rows = [{"token_id": new.id, "hostname_id": hostname_id} for hostname_id in hostname_ids]
    if rows:
        connection.execute(insert(grants), rows)


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


def _hostname_ids(connection: Connection, names: Iterable[Name]) -> list[int]:
    query = select(hostnames.c.id).where(hostnames.c.hostname.in_(bindparam("names", expanding=True)))
    return [
        row_id
        for chunk in journal.chunks(dict.fromkeys(names))
        for row_id in connection.scalars(query, {"names": chunk})
    ]
