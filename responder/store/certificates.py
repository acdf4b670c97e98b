"""
Certificates of the service's own, shared by all nodes: the pair in use, and who obtains the next one.

Keys lie here as they are: whoever reads the database can use them (see SECURITY.md).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from responder.errors import Invalid
from responder.names import Name
from responder.store.clock import database_clock
from responder.store.schema import Instant, acme_accounts, certificates
from responder.tls.keypair import KeyPair


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificate:
    """
    What is known of the certificate of one host: the *pair* in use and the *directory* of the CA it came from, when
    somebody last tried to obtain one, how often in a row that has failed, and when to try again.
    """

    pair: KeyPair | None = None
    directory: str | None = None
    attempted_at: datetime | None = None
    failures: int = 0
    retry_at: datetime | None = None


def account_key(connection: Connection, directory: str, new: bytes) -> bytes:
    """The key of our account with the CA at *directory*: *new* if there is none yet."""
    with suppress(IntegrityError), connection.begin_nested():  # somebody else may have been quicker
        if _account_key(connection, directory) is None:
            connection.execute(insert(acme_accounts), {"directory": directory, "key": new.decode()})
    found = _account_key(connection, directory)
    assert found is not None  # noqa: S101  # if not by us, then inserted by who was quicker
    return found.encode()


def find(connection: Connection, hostname: Name) -> OwnCertificate:
    """What is known of the certificate of *hostname*. A pair that is damaged is none: another one can be had."""
    row = connection.execute(select(certificates).where(certificates.c.hostname == hostname)).one_or_none()
    if row is None:
        return OwnCertificate()
    return OwnCertificate(
        pair=_pair(row.chain, row.key),
        directory=row.directory,
        attempted_at=row.attempted_at,
        failures=row.failures,
        retry_at=row.retry_at,
    )


def begin(connection: Connection, hostname: Name, *, holder: UUID, lease: timedelta, now: datetime) -> bool:
    """Note that *holder* obtains a certificate, for as long as the *lease* lasts; False if another holder does."""
    with suppress(IntegrityError), connection.begin_nested():
        known = select(certificates.c.hostname).where(certificates.c.hostname == hostname)
        if connection.scalar(known) is None:
            connection.execute(insert(certificates), {"hostname": hostname, "failures": 0})
    present = _now(connection)
    is_free = certificates.c.busy_until.is_(None) | (certificates.c.busy_until <= literal(present, Instant))
    begun = connection.execute(
        update(certificates)
        .where(certificates.c.hostname == hostname, is_free)
        .values(attempted_at=now, busy_until=present + lease, busy_by=holder)
    )
    return begun.rowcount == 1


def go_on(connection: Connection, hostname: Name, *, holder: UUID, lease: timedelta) -> None:
    """Let the *lease* of *holder* begin anew, unless somebody else has begun since, or has a certificate."""
    mine = (certificates.c.hostname == hostname) & (certificates.c.busy_by == holder)
    connection.execute(update(certificates).where(mine).values(busy_until=_now(connection) + lease))


def keep(connection: Connection, hostname: Name, directory: str, pair: KeyPair) -> None:
    """The certificate was obtained: it is the one in use from now on."""
    _end(connection, hostname, directory=directory, chain=pair.chain.decode(), key=pair.key.decode(), failures=0)


def note_failure(connection: Connection, hostname: Name, *, failures: int, retry_at: datetime) -> None:
    """It was not, *failures* times in a row by now; the next attempt is due at *retry_at*."""
    _end(connection, hostname, failures=failures, retry_at=retry_at)


def give_up(connection: Connection, hostname: Name) -> None:
    """Whoever was obtaining it stopped before it was decided."""
    connection.execute(update(certificates).where(certificates.c.hostname == hostname).values(_FREE))


def _end(connection: Connection, hostname: Name, *, retry_at: datetime | None = None, **values: object) -> None:
    connection.execute(
        update(certificates).where(certificates.c.hostname == hostname).values(_FREE | {"retry_at": retry_at} | values)
    )


_FREE: dict[str, object] = {"busy_until": None, "busy_by": None}


def _now(connection: Connection) -> datetime:
    """The present by the database's clock, in which leases are measured."""
    return datetime.fromtimestamp(connection.execute(select(database_clock())).scalar_one(), UTC)


def _pair(chain: str | None, key: str | None) -> KeyPair | None:
    with suppress(Invalid):
        return KeyPair.parse((chain or "").encode(), (key or "").encode())
    return None


def _account_key(connection: Connection, directory: str) -> str | None:
    return connection.scalar(select(acme_accounts.c.key).where(acme_accounts.c.directory == directory))
