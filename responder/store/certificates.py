"""
Certificates of the service's own, shared by all nodes: the pair in use, and who obtains the next one.

Private keys are sealed wherever there is a key file (see `sealing`). Where there is none, anyone who reads the database
can use them (see SECURITY.md).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from cryptography import x509
from sqlalchemy import Connection, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from responder.errors import Invalid
from responder.names import Name
from responder.store.clock import database_clock
from responder.store.schema import Instant, acme_accounts, certificates
from responder.store.sealing import Sealer, is_sealed
from responder.tls.keypair import KeyPair


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificate:
    """
    What is known of the certificate of one host: the *pair* in use and the *directory* of the CA it came from, when
    somebody last tried to obtain one, how often in a row that has failed, and when to try again.

    *locked* is when the pair was issued, if its private key is sealed with a key file that is not at hand.
    """

    pair: KeyPair | None = None
    locked: datetime | None = None
    directory: str | None = None
    attempted_at: datetime | None = None
    failures: int = 0
    retry_at: datetime | None = None


def account_key(connection: Connection, directory: str, new: bytes, *, sealer: Sealer | None) -> bytes:
    """
    The key of our account with the CA at *directory*: *new* if there is none yet, or one that was sealed with another
    key file than that of *sealer*. Raises `Invalid` if it is damaged, or is sealed and there is no key file.
    """
    with suppress(IntegrityError), connection.begin_nested():  # somebody else may have been quicker
        if _account_key(connection, directory) is None:
            key = _sealed(new.decode(), _account(directory), sealer)
            connection.execute(insert(acme_accounts), {"directory": directory, "key": key})
    found = _account_key(connection, directory)
    assert found is not None  # noqa: S101  # if not by us, then inserted by who was quicker
    if _is_locked(found, sealer):
        if sealer is None:
            raise Invalid(_NO_KEY_FILE)
        found = new.decode()
    if sealer is not None and not is_sealed(found):
        _put_account_key(connection, directory, sealer.seal(found, _account(directory)))
    return _opened(found, _account(directory), sealer).encode()


def find(connection: Connection, hostname: Name, *, sealer: Sealer | None) -> OwnCertificate:
    """What is known of the certificate of *hostname*. A pair that is damaged is none: another one can be had."""
    row = connection.execute(select(certificates).where(certificates.c.hostname == hostname)).one_or_none()
    if row is None:
        return OwnCertificate()
    chain, key = row.chain or "", row.key or ""
    locked = _is_locked(key, sealer)
    return OwnCertificate(
        pair=None if locked else _pair(chain, key, hostname, sealer),
        locked=_issued_at(chain) if locked else None,
        directory=row.directory,
        attempted_at=row.attempted_at,
        failures=row.failures,
        retry_at=row.retry_at,
    )


def seal(connection: Connection, sealer: Sealer) -> int:
    """Seal all private keys that are not sealed yet, and return how many they were."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")  # nothing of them stays behind in pages that become free
    accounts = connection.execute(select(acme_accounts.c.directory, acme_accounts.c.key)).all()
    hosts = connection.execute(select(certificates.c.hostname, certificates.c.key)).all()
    open_accounts = [row for row in accounts if not is_sealed(row.key)]
    open_hosts = [row for row in hosts if row.key and not is_sealed(row.key)]
    for row in open_accounts:
        _put_account_key(connection, row.directory, sealer.seal(row.key, _account(row.directory)))
    for row in open_hosts:
        key = sealer.seal(row.key, _host(row.hostname))
        connection.execute(update(certificates).where(certificates.c.hostname == row.hostname).values(key=key))
    return len(open_accounts) + len(open_hosts)


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


def keep(connection: Connection, hostname: Name, directory: str, pair: KeyPair, *, sealer: Sealer | None) -> None:
    """The certificate was obtained: it is the one in use from now on."""
    key = _sealed(pair.key.decode(), _host(hostname), sealer)
    _end(connection, hostname, directory=directory, chain=pair.chain.decode(), key=key, failures=0)


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


_NO_KEY_FILE = (
    "the private keys in the database are encrypted: name the key file that they were encrypted with "
    "(dns.update.key_file, on every node the same one)"
)


def _account(directory: str) -> str:
    return f"ACME account {directory}"


def _host(hostname: Name) -> str:
    return f"certificate {hostname}"


def _sealed(key: str, purpose: str, sealer: Sealer | None) -> str:
    return key if sealer is None else sealer.seal(key, purpose)


def _opened(key: str, purpose: str, sealer: Sealer | None) -> str:
    return sealer.open(key, purpose) if sealer is not None and is_sealed(key) else key


def _is_locked(key: str, sealer: Sealer | None) -> bool:
    return is_sealed(key) and (sealer is None or not sealer.can_open(key))


def _pair(chain: str, key: str, hostname: Name, sealer: Sealer | None) -> KeyPair | None:
    with suppress(Invalid):
        return KeyPair.parse(chain.encode(), _opened(key, _host(hostname), sealer).encode())
    return None


def _issued_at(chain: str) -> datetime | None:
    """When that certificate was issued; None if it is damaged."""
    try:
        return x509.load_pem_x509_certificate(chain.encode()).not_valid_before_utc
    except ValueError:
        return None


def _account_key(connection: Connection, directory: str) -> str | None:
    return connection.scalar(select(acme_accounts.c.key).where(acme_accounts.c.directory == directory))


def _put_account_key(connection: Connection, directory: str, key: str) -> None:
    connection.execute(update(acme_accounts).where(acme_accounts.c.directory == directory).values(key=key))
