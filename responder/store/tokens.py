"""
Tokens, their secrets and their grants: the transactions of `Store` that mint, find, change and revoke tokens.

`grants` decides which hostname owns which challenge name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hmac import compare_digest
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    Connection,
    Row,
    Text,
    bindparam,
    delete,
    exists,
    insert,
    literal,
    select,
    true,
    type_coerce,
    update,
)

from responder.errors import Invalid, NotFound
from responder.names import Name
from responder.store import journal
from responder.store.audit import AuditAction, AuditEvent, record
from responder.store.grants import Wanted, ended, give, hostname_ids
from responder.store.schema import Instant, challenge_values, grants, hostnames, secrets, tokens, zones
from responder.store.values import remove
from responder.tokens.network import Network
from responder.tokens.secret import Digest
from responder.tokens.token import TEMPORARY, Grant, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """
    A token to mint.

    A token that is taken over from another server has the *bcrypt* hash of its secret, and no *digest* yet.
    """

    digest: Digest | None
    grants: tuple[Grant, ...]
    created_at: datetime
    id: UUID = field(default_factory=uuid4)
    description: str | None = None
    expires_at: datetime | None = None
    allow_from: tuple[Network, ...] = ()
    account_thumbprint: str | None = None
    bcrypt: bytes | None = None


def mint(connection: Connection, new: NewToken, *, by: str | None = None) -> Token:
    locked = journal.lock_zones(connection)
    insert_tokens(connection, [new])
    give(connection, locked, _wanted(new.id, new.grants), action=AuditAction.MINT, at=new.created_at, by=by)
    return by_id(connection, new.id)


def find(connection: Connection, digest: Digest) -> Token | None:
    # The timing of the index reveals nothing useful (see `tokens.secret.digest`); the comparison takes constant time.
    for row, token in _tokens(connection.execute(_BY_DIGEST, {"wanted": digest})):
        if compare_digest(row.digest, digest):
            return _until(token, row.secret_expires_at)
    return None


def find_generation(connection: Connection, token_id: UUID, generation: int) -> Token | None:
    wanted = _EVERY_SECRET.where(tokens.c.id == token_id, secrets.c.generation == generation)
    for row, token in _tokens(connection.execute(wanted)):
        return _until(token, row.secret_expires_at)
    return None


def find_bcrypt(connection: Connection, token_id: UUID) -> bytes | None:
    return connection.scalar(select(secrets.c.bcrypt).where(secrets.c.token_id == token_id, secrets.c.digest.is_(None)))


def settle_bcrypt(connection: Connection, token_id: UUID, hashed: bytes, digest: Digest) -> None:
    mine = (secrets.c.token_id == token_id) & (secrets.c.bcrypt == hashed) & secrets.c.digest.is_(None)
    connection.execute(update(secrets).where(mine).values(digest=digest, bcrypt=None))


def by_id(connection: Connection, token_id: UUID) -> Token:
    # `_TOKENS` has the newest generation of each token.
    for _, token in _tokens(connection.execute(_TOKENS.where(tokens.c.id == token_id))):
        return token
    raise NotFound(_NO_SUCH_TOKEN)


def id_of(connection: Connection, beginning: str) -> UUID:
    as_text = type_coerce(tokens.c.id, Text)
    found = list(connection.scalars(select(tokens.c.id).where(as_text.startswith(beginning, autoescape=True)).limit(2)))
    if not found:
        raise NotFound(_NO_SUCH_TOKEN)
    if len(found) > 1:
        raise Invalid("several tokens have an id that begins with this text: write more of the id")
    token_id: UUID = found[0]
    return token_id


def ids(connection: Connection) -> list[UUID]:
    return list(connection.scalars(select(tokens.c.id)))


def every(connection: Connection) -> list[Token]:
    return [token for _, token in _tokens(connection.execute(_TOKENS))]


def granted(connection: Connection, hostname: Name) -> list[Token]:
    theirs = (
        select(grants.c.token_id)
        .join(hostnames, hostnames.c.id == grants.c.hostname_id)
        .where(hostnames.c.hostname == hostname)
    )
    return [token for _, token in _tokens(connection.execute(_TOKENS.where(tokens.c.id.in_(theirs))))]


def revoke(connection: Connection, token_id: UUID, *, at: datetime, by: str | None = None) -> None:
    locked = journal.lock_zones(connection)
    if by_id(connection, token_id).revoked_at is not None:
        return
    connection.execute(update(tokens).where(tokens.c.id == token_id).values(revoked_at=at))
    ids = list(connection.scalars(select(grants.c.hostname_id).where(grants.c.token_id == token_id)))
    touched = _drop_values(connection, token_id)
    journal.advance_names(connection, locked, [*touched, *ended(connection, ids)], now=at)
    record(connection, [AuditEvent(at=at, action=AuditAction.REVOKE, token_id=token_id, client=by)])


def sweep(connection: Connection, ended_before: datetime, limit: int, *, at: datetime) -> int:
    """
    Delete temporary tokens (see `TEMPORARY`) that ended before this instant, and return how many of them were found.

    One that has expired, but was not revoked, is revoked first, and deleted as long after that.
    """
    ended = literal(ended_before, Instant)
    query = (
        select(tokens.c.id, tokens.c.revoked_at)
        .where(tokens.c.description.in_(TEMPORARY), tokens.c.expires_at.is_not(None))
        .where((tokens.c.revoked_at < ended) | (tokens.c.revoked_at.is_(None) & (tokens.c.expires_at < ended)))
        .limit(limit)
    )
    rows = connection.execute(query).all()
    for row in rows:
        if row.revoked_at is None:
            revoke(connection, row.id, at=at)
    gone = [row.id for row in rows if row.revoked_at is not None]
    for chunk in journal.chunks(gone):
        connection.execute(delete(tokens).where(tokens.c.id.in_(chunk)))
    return len(rows)


def rotate(
    connection: Connection, token_id: UUID, digest: Digest, *, at: datetime, grace: timedelta, by: str | None = None
) -> Token:
    journal.lock_zones(connection)  # two rotations at the same time would use the same generation
    token = _usable(connection, token_id)
    mine = secrets.c.token_id == token_id
    ends = at + grace
    connection.execute(
        update(secrets).where(mine, secrets.c.expires_at.is_(None) | (secrets.c.expires_at > ends)),
        {"expires_at": ends},
    )
    # Without a grace, all earlier secrets are deleted: one that ends now would stay valid to the end of this second.
    connection.execute(delete(secrets).where(mine, (secrets.c.expires_at <= literal(at, Instant)) if grace else true()))
    connection.execute(
        insert(secrets),
        {"token_id": token_id, "generation": token.generation + 1, "digest": digest, "created_at": at},
    )
    record(connection, [AuditEvent(at=at, action=AuditAction.ROTATE, token_id=token_id, client=by)])
    return by_id(connection, token_id)


def allow(
    connection: Connection, token_id: UUID, wanted: Iterable[Grant], *, at: datetime, by: str | None = None
) -> Token:
    locked = journal.lock_zones(connection)
    _usable(connection, token_id)
    give(connection, locked, _wanted(token_id, wanted), action=AuditAction.ALLOW, at=at, by=by)
    return by_id(connection, token_id)


def deny(
    connection: Connection, token_id: UUID, names: Iterable[Name], *, at: datetime, by: str | None = None
) -> Token:
    locked = journal.lock_zones(connection)
    token = _usable(connection, token_id)
    held = {grant.hostname for grant in token.grants}
    denied = list(dict.fromkeys(names))
    if missing := [name for name in denied if name not in held]:
        raise NotFound(f"the token has no grant for {', '.join(map(str, missing))}: see responder token show")
    ids = list(hostname_ids(connection, denied).values())
    kept = {grant.challenge_name for grant in token.grants if grant.hostname not in denied}
    lost = {grant.challenge_name for grant in token.grants if grant.hostname in denied}
    touched = _drop_values(connection, token_id, lost - kept)
    for chunk in journal.chunks(ids):
        connection.execute(delete(grants).where(grants.c.token_id == token_id, grants.c.hostname_id.in_(chunk)))
    journal.advance_names(connection, locked, [*touched, *ended(connection, ids)], now=at)
    record(
        connection,
        (
            AuditEvent(at=at, action=AuditAction.DENY, token_id=token_id, hostname=hostname, client=by)
            for hostname in denied
        ),
    )
    return by_id(connection, token_id)


def insert_tokens(connection: Connection, new: Sequence[NewToken]) -> None:
    """Insert tokens, each with its first secret, but without its grants."""
    connection.execute(
        insert(tokens),
        [
            {
                "id": each.id,
                "description": each.description,
                "created_at": each.created_at,
                "expires_at": each.expires_at,
                "allow_from": each.allow_from,
                "account_thumbprint": each.account_thumbprint,
            }
            for each in new
        ],
    )
    connection.execute(
        insert(secrets),
        [
            {
                "token_id": each.id,
                "generation": 1,
                "digest": each.digest,
                "bcrypt": each.bcrypt,
                "created_at": each.created_at,
            }
            for each in new
        ],
    )


_NO_SUCH_TOKEN = "there is no token with that id: see responder token list"  # noqa: S105

_EVERY_SECRET = (
    select(tokens, hostnames.c.hostname, hostnames.c.challenge_name, zones.c.apex)
    .add_columns(secrets.c.generation, secrets.c.digest, secrets.c.expires_at.label("secret_expires_at"))
    .join(secrets, secrets.c.token_id == tokens.c.id)
    .outerjoin(grants, grants.c.token_id == tokens.c.id)
    .outerjoin(hostnames, hostnames.c.id == grants.c.hostname_id)
    .outerjoin(zones, zones.c.id == hostnames.c.zone_id)
    .order_by(tokens.c.created_at, tokens.c.id, hostnames.c.hostname)
)
_newer = secrets.alias("newer")
_TOKENS = _EVERY_SECRET.where(
    ~exists().where(_newer.c.token_id == secrets.c.token_id, _newer.c.generation > secrets.c.generation)
)
_BY_DIGEST = _EVERY_SECRET.where(secrets.c.digest == bindparam("wanted"))


def _tokens(rows: Iterable[Row[*tuple[Any, ...]]]) -> Iterator[tuple[Row[*tuple[Any, ...]], Token]]:
    """Yield each token with its grants, and one of its rows. All *rows* of a token must be about one of its secrets."""
    for _, group in groupby(rows, key=lambda row: row.id):
        same = list(group)
        row = same[0]
        granted = (one for one in same if one.hostname is not None)
        yield (
            row,
            Token(
                id=row.id,
                description=row.description,
                grants=tuple(_grant(one) for one in granted),
                created_at=row.created_at,
                expires_at=row.expires_at,
                last_used_at=row.last_used_at,
                revoked_at=row.revoked_at,
                allow_from=row.allow_from,
                account_thumbprint=row.account_thumbprint,
                generation=row.generation,
            ),
        )


def _grant(row: Row[*tuple[Any, ...]]) -> Grant:
    return Grant(hostname=row.hostname, challenge_name=row.challenge_name, apex=row.apex)


def _until(token: Token, expires_at: datetime | None) -> Token:
    """Return *token* with *expires_at* as its end, if that is earlier: the end of the secret that a client has used."""
    ends = [at for at in (token.expires_at, expires_at) if at is not None]
    return replace(token, expires_at=min(ends, default=None))


def _drop_values(connection: Connection, token_id: UUID, at: Collection[Name] | None = None) -> list[Name]:
    """Remove the values of a token, at all challenge names or at these. Returns the names that had them."""
    query = select(challenge_values.c.id, challenge_values.c.challenge_name).where(
        challenge_values.c.token_id == token_id
    )
    mine = [row for row in connection.execute(query) if at is None or row.challenge_name in at]
    remove(connection, (row.id for row in mine))
    return list(dict.fromkeys(row.challenge_name for row in mine))


def _wanted(token_id: UUID, wanted: Iterable[Grant]) -> list[Wanted]:
    return [Wanted(token_id, grant) for grant in dict.fromkeys(wanted)]


def _usable(connection: Connection, token_id: UUID) -> Token:
    token = by_id(connection, token_id)
    if token.revoked_at is not None:
        raise NotFound("that token was revoked, which cannot be undone: mint a new one")
    return token
