"""
Challenge values one by one: the transactions of `Store` that let them expire, clear them and list them.

A batch of presents, cleanups and updates is applied in `responder.store.batch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, func, literal, select

from responder.dns.zone import Change
from responder.errors import NotFound
from responder.names import Name
from responder.store import journal
from responder.store.audit import AuditAction, AuditEvent, record
from responder.store.schema import Instant, challenge_values, grants, hostnames, zones
from responder.tokens.serving import Serving

MAX_EXPIRED = 1000
"""Values that one call of `expire` removes at most, so that a present does not wait long for it."""


# The hostname of a value: one that its token covers, always the same one if several share the name.
_HOSTNAME = (
    select(func.min(hostnames.c.hostname))
    .join(grants, grants.c.hostname_id == hostnames.c.id)
    .where(
        hostnames.c.challenge_name == challenge_values.c.challenge_name,
        grants.c.token_id == challenge_values.c.token_id,
    )
    .scalar_subquery()
    .label("hostname")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveValue:
    """A stored value, with the hostnames that have its challenge name and the token that presented it."""

    hostnames: tuple[Name, ...]
    challenge_name: Name
    apex: Name
    value: str
    token_id: UUID
    presented_at: datetime
    expires_at: datetime

    def is_served(self, serving: Serving) -> bool:
        """Return whether DNS shows the value on a service that serves *serving*."""
        return serving.fault(self.challenge_name, self.apex) is None


def expire(connection: Connection, *, now: datetime) -> list[Change]:
    locked = journal.lock_zones(connection)
    rows = connection.execute(
        select(challenge_values.c.id, challenge_values.c.value, challenge_values.c.token_id)
        .add_columns(challenge_values.c.challenge_name, _HOSTNAME)
        # An `Instant`, because a `Deadline` would round *now* up.
        .where(challenge_values.c.expires_at <= literal(now, Instant))
        .order_by(challenge_values.c.expires_at)
        .limit(MAX_EXPIRED)
    ).all()
    remove(connection, (row.id for row in rows))
    record(
        connection,
        (
            AuditEvent(at=now, action=AuditAction.EXPIRE, token_id=row.token_id, hostname=row.hostname, value=row.value)
            for row in rows
        ),
    )
    return journal.advance_names(connection, locked, dict.fromkeys(row.challenge_name for row in rows), now=now)


def clear(
    connection: Connection, challenge_name: Name, value: str | None, *, now: datetime, by: str | None = None
) -> list[str]:
    locked = journal.lock_zones(connection)
    query = select(challenge_values.c.id, challenge_values.c.value, _HOSTNAME).where(
        challenge_values.c.challenge_name == challenge_name
    )
    if value is not None:
        query = query.where(challenge_values.c.value == value)
    rows = connection.execute(query).all()
    if not rows:
        raise NotFound(f"{challenge_name} has no {'values' if value is None else 'such value'}")
    remove(connection, (row.id for row in rows))
    record(
        connection,
        (
            AuditEvent(at=now, action=AuditAction.CLEAR, hostname=row.hostname, value=row.value, client=by)
            for row in rows
        ),
    )
    journal.advance_names(connection, locked, [challenge_name], now=now)
    return sorted(row.value for row in rows)


def live(connection: Connection, token_id: UUID | None) -> list[LiveValue]:
    query = (
        select(hostnames.c.hostname, zones.c.apex, challenge_values)
        .join(hostnames, hostnames.c.challenge_name == challenge_values.c.challenge_name)
        .join(zones, zones.c.id == hostnames.c.zone_id)
        .where(journal.is_granted())
        .order_by(challenge_values.c.challenge_name, challenge_values.c.presented_at, challenge_values.c.id)
        .order_by(hostnames.c.hostname)
    )
    if token_id is not None:
        mine = select(hostnames.c.challenge_name).join(grants).where(grants.c.token_id == token_id)
        query = query.where(challenge_values.c.challenge_name.in_(mine))
    return [
        LiveValue(
            hostnames=(row.hostname, *(other.hostname for other in others)),
            challenge_name=row.challenge_name,
            apex=row.apex,
            value=row.value,
            token_id=row.token_id,
            presented_at=row.presented_at,
            expires_at=row.expires_at,
        )
        for _, (row, *others) in groupby(connection.execute(query), key=lambda row: row.id)
    ]


def remove(connection: Connection, ids: Iterable[int]) -> None:
    """Delete the values with these row ids."""
    query = delete(challenge_values).where(challenge_values.c.id.in_(bindparam("ids", expanding=True)))
    for chunk in journal.chunks(ids):
        connection.execute(query, {"ids": chunk})
