"""Who did what, when, from where, and what was refused. Written in the same transaction as what it tells of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select

from responder.names import Name
from responder.store.schema import audit, grants, hostnames

MAX_PRUNED = 10_000
"""Rows deleted at a time."""

MAX_EVENTS = 1_000_000
"""Rows kept, however young, about 200 MB: whoever may write must not be able to fill the disk with that."""


class Action(StrEnum):
    """What was done or tried."""

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


class Verdict(StrEnum):
    """What came of it."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that was done or refused. *reason* is the text that a refused caller got."""

    at: datetime
    action: Action
    verdict: Verdict = Verdict.DONE
    token_id: UUID | None = None
    hostname: Name | None = None
    value: str | None = None
    client: str | None = None
    reason: str | None = None


_RECORD = insert(audit)


def record(connection: Connection, events: Iterable[AuditEvent]) -> None:
    """Write *events* down."""
    rows = [
        {
            "at": event.at,
            "action": event.action.value,
            "outcome": event.verdict.value,
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
    """
    What happened at or after *since*, oldest first: all of it, or what concerns *hostname*. That includes what is about
    a token as a whole which is granted it, such as a refusal before it was known for which hostname it came.
    """
    query = select(audit).where(audit.c.at >= since).order_by(audit.c.at, audit.c.id)
    if hostname is not None:
        theirs = select(grants.c.token_id).join(hostnames).where(hostnames.c.hostname == hostname)
        query = query.where(
            (audit.c.hostname == hostname) | (audit.c.hostname.is_(None) & audit.c.token_id.in_(theirs))
        )
    return [
        AuditEvent(
            at=row.at,
            action=Action(row.action),
            verdict=Verdict(row.outcome),
            token_id=row.token_id,
            hostname=row.hostname,
            value=row.value,
            client=row.client,
            reason=row.reason,
        )
        for row in connection.execute(query)
    ]


def prune(connection: Connection, before: datetime) -> bool:
    """
    Forget what happened *before*, and what there is too much of; some at a time, so that nobody waits long for the
    writer. Returns whether there may be more.
    """
    newest = connection.scalar(select(func.max(audit.c.id))) or 0
    old = (audit.c.at < before) | (audit.c.id <= newest - MAX_EVENTS)
    ids = list(connection.scalars(select(audit.c.id).where(old).order_by(audit.c.id).limit(MAX_PRUNED)))
    if ids:
        connection.execute(delete(audit).where(audit.c.id >= ids[0], audit.c.id <= ids[-1], old))
    return len(ids) == MAX_PRUNED
