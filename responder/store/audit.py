"""The audit: which token did what, when and from where, and what was refused. An event is written with its change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, Text, bindparam, delete, func, insert, select, type_coerce

from responder.names import Name
from responder.store.journal import chunks
from responder.store.schema import audit, grants, hostnames


class AuditAction(StrEnum):
    """What was done or attempted."""

    MINT = "mint"
    IMPORT = "import"
    REVOKE = "revoke"
    ROTATE = "rotate"
    ALLOW = "allow"
    DENY = "deny"
    AUTHENTICATE = "authenticate"
    PRESENT = "present"
    CLEANUP = "cleanup"
    EVICT = "evict"
    EXPIRE = "expire"
    CLEAR = "clear"


class AuditResult(StrEnum):
    """Whether an action was done or refused."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One action that was done or refused. *reason* is the error text that a refused client got."""

    at: datetime
    action: AuditAction
    result: AuditResult = AuditResult.DONE
    token_id: UUID | None = None
    hostname: Name | None = None
    value: str | None = None
    client: str | None = None
    reason: str | None = None


_RECORD = insert(audit)
_HOLDER = func.coalesce(type_coerce(audit.c.token_id, Text), "").label("holder")
_NUMBER = func.count().label("number")


def record(connection: Connection, events: Iterable[AuditEvent]) -> None:
    rows = [
        {
            "at": event.at,
            "action": event.action.value,
            "outcome": event.result.value,
            "token_id": event.token_id,
            "hostname": event.hostname,
            "value": event.value,
            "client": event.client,
            "reason": event.reason,
        }
        for event in events
    ]
    if rows:
        connection.execute(_RECORD, rows)


def events(connection: Connection, since: datetime, hostname: Name | None) -> list[AuditEvent]:
    query = select(audit).where(audit.c.at >= since).order_by(audit.c.at, audit.c.id)
    if hostname is not None:
        theirs = select(grants.c.token_id).join(hostnames).where(hostnames.c.hostname == hostname)
        past = audit.alias("past")
        had = select(past.c.token_id).where(past.c.hostname == hostname, past.c.outcome == AuditResult.DONE.value)
        name = select(hostnames.c.challenge_name).where(hostnames.c.hostname == hostname).scalar_subquery()
        sharing = select(hostnames.c.hostname).where(hostnames.c.challenge_name == name)
        about = (audit.c.hostname == hostname) | (audit.c.hostname.in_(sharing) & audit.c.value.is_not(None))
        query = query.where(about | (audit.c.hostname.is_(None) & audit.c.token_id.in_(theirs.union(had))))
    return [
        AuditEvent(
            at=row.at,
            action=AuditAction(row.action),
            result=AuditResult(row.outcome),
            token_id=row.token_id,
            hostname=row.hostname,
            value=row.value,
            client=row.client,
            reason=row.reason,
        )
        for row in connection.execute(query)
    ]


def newest(connection: Connection) -> int:
    """Return the id of the newest event; it grows by one with each event."""
    return connection.scalar(select(func.max(audit.c.id))) or 0


def count(connection: Connection) -> int:
    """Return the number of events."""
    return connection.scalar(select(func.count()).select_from(audit)) or 0


def shares(connection: Connection) -> dict[str, int]:
    """Return how many events each token has, by its id as text; "" stands for events without a token."""
    return {row.holder: row.number for row in connection.execute(select(_HOLDER, _NUMBER).group_by(_HOLDER))}


def before(connection: Connection, at: datetime, limit: int) -> list[int]:
    """Return the ids of the oldest events before *at*, at most *limit*."""
    return list(connection.scalars(select(audit.c.id).where(audit.c.at < at).order_by(audit.c.at).limit(limit)))


def oldest_of(connection: Connection, holders: Iterable[str], after: int, limit: int) -> list[tuple[int, str]]:
    """
    Return the oldest events of *holders* (see `shares`) with an id above *after*, at most *limit*.

    Each is a pair of its id and its holder.
    """
    query = select(audit.c.id, _HOLDER).where(audit.c.id > after, _HOLDER.in_(list(holders)))
    return [(row.id, row.holder) for row in connection.execute(query.order_by(audit.c.id).limit(limit))]


def forget(connection: Connection, ids: Iterable[int]) -> None:
    """Delete the events with these ids."""
    query = delete(audit).where(audit.c.id.in_(bindparam("ids", expanding=True)))
    for chunk in chunks(ids):
        connection.execute(query, {"ids": chunk})
