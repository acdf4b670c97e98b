"""
Storing accounts of another server, many at a time: tokens whose secrets are known only by a bcrypt hash, with the
values that the other server shows for them. `acmedns` reads the accounts from the database of the other server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, bindparam, select, update

from responder.errors import NameTaken
from responder.store import journal
from responder.store.audit import AuditAction
from responder.store.batch import apply
from responder.store.grants import Wanted, give, owned
from responder.store.schema import tokens
from responder.store.tokens import NewToken, insert_tokens
from responder.tokens.serving import Serving
from responder.tokens.values import Present

CLIENT = "import"
"""What the audit shows instead of the address of a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """
    An account to take over: the *token* to store, the *values* at its one name, oldest first, and when it was last
    used on the other server.
    """

    token: NewToken
    values: tuple[str, ...] = ()
    last_used_at: datetime | None = None


def take_over(
    connection: Connection,
    accounts: Sequence[Account],
    *,
    serving: Serving,
    at: datetime,
    until: datetime,
    dry_run: bool,
    by: str | None = None,
) -> set[UUID]:
    with connection.begin_nested() as savepoint:
        known = _known(connection, [account.token.id for account in accounts])
        new = {account.token.id: account for account in accounts if account.token.id not in known}
        if new:
            apexes = [grant.apex for each in new.values() for grant in each.token.grants]
            journal.register(connection, dict.fromkeys(apexes), now=at)
            _write(connection, list(new.values()), serving=serving, at=at, until=until, by=by)
        if dry_run:
            savepoint.rollback()
    return set(new)


_KNOWN = select(tokens.c.id).where(tokens.c.id.in_(bindparam("ids", expanding=True)))
_USED = (
    update(tokens)
    .where(tokens.c.id == bindparam("token_id"))
    .values(last_used_at=bindparam("used_at", type_=tokens.c.last_used_at.type))
)


def _known(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    return {known for chunk in journal.chunks(ids) for known in connection.scalars(_KNOWN, {"ids": chunk})}


def _write(
    connection: Connection,
    new: Sequence[Account],
    *,
    serving: Serving,
    at: datetime,
    until: datetime,
    by: str | None,
) -> None:
    zones = journal.lock_zones(connection)
    names = [grant.hostname for account in new for grant in account.token.grants]
    # Several tokens may share a hostname, but the name of an account belongs to that account alone.
    if len(set(names)) < len(names) or owned(connection, names):
        raise NameTaken("the name of an account belongs to another token")
    insert_tokens(connection, [account.token for account in new])
    wanted = [Wanted(account.token.id, grant) for account in new for grant in account.token.grants]
    give(connection, zones, wanted, action=AuditAction.IMPORT, at=at, by=by)
    presents = [
        Present(
            token_id=account.token.id,
            challenge_name=grant.challenge_name,
            value=value,
            expires_at=until,
            client=CLIENT,
            evict_oldest=True,
        )
        for account in new
        for grant in account.token.grants
        for value in account.values
    ]
    apply(connection, presents, serving=serving, now=at)
    # `apply` has marked the tokens as used now, but their holders did not use them.
    connection.execute(_USED, [{"token_id": account.token.id, "used_at": account.last_used_at} for account in new])
