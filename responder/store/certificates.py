"""
Our own certificates, shared by all nodes: the one in use, and which process obtains the next one.

Private keys are encrypted if there is a key file (see `sealing`). Without one, anyone who can read the database can use
them (see SECURITY.md).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from cryptography import x509
from sqlalchemy import Connection, literal, select, update

from responder.errors import Invalid
from responder.names import Name
from responder.store.clock import database_clock
from responder.store.database import Database
from responder.store.schema import Instant, acme_accounts, certificates
from responder.store.sealing import Sealer, is_sealed
from responder.store.upsert import insert_if_absent
from responder.tls.keypair import KeyPair


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificate:
    """
    What is stored about the certificate of one host.

    *pair* is the certificate in use with its private key, and *directory* the CA that issued it. *attempted_at* is the
    time of the last attempt to obtain one, *failures* how many attempts in a row have failed, and *retry_at* when to
    try again. *locked* is when the certificate was issued, if its private key cannot be decrypted with our key file.
    """

    pair: KeyPair | None = None
    locked: datetime | None = None
    directory: str | None = None
    attempted_at: datetime | None = None
    failures: int = 0
    retry_at: datetime | None = None


class Certificates:
    """Our own certificates and the keys of our ACME accounts in *database*, encrypted by *sealer* if there is one."""

    def __init__(self, database: Database, sealer: Sealer | None) -> None:
        self._database = database
        self._sealer = sealer

    @property
    def are_sealed(self) -> bool:
        """Whether private keys are encrypted before they are stored."""
        return self._sealer is not None

    async def seal(self) -> int:
        """Encrypt the stored private keys that are not encrypted, if there is a key file, and return their number."""
        return 0 if self._sealer is None else await self._database.write(_seal, self._sealer)

    async def account_key(self, directory: str, new: bytes) -> bytes:
        """
        Return the key of our account with the CA at *directory*, in PEM.

        *new* is stored and returned if there is no key yet, or if it was encrypted with another key file. Raises
        `Invalid` if the key is damaged, or if it is encrypted and there is no key file.
        """
        return await self._database.write(_account_key, directory, new, sealer=self._sealer)

    async def find(self, hostname: Name) -> OwnCertificate:
        """Return what is stored about the certificate of *hostname*. A damaged *pair* is left out."""
        return await self._database.read(_find, hostname, sealer=self._sealer)

    async def begin(self, hostname: Name, *, holder: UUID, lease: timedelta, now: datetime) -> bool:
        """
        Give *holder* the lease for obtaining a certificate. Returns False if another holder has it.

        `go_on` renews the lease; `keep`, `note_failure` and `give_up` end it. It is measured with the clock of the
        database; *now* is stored as the time of the attempt.
        """
        return await self._database.write(_begin, hostname, holder=holder, lease=lease, now=now)

    async def go_on(self, hostname: Name, *, holder: UUID, lease: timedelta) -> None:
        """Let the *lease* of *holder* begin again from now, unless it was ended or another holder has it."""
        await self._database.write(_go_on, hostname, holder=holder, lease=lease)

    async def keep(self, hostname: Name, directory: str, pair: KeyPair) -> None:
        """Store *pair*, from the CA at *directory*, as the certificate in use, and end the lease."""
        await self._database.write(_keep, hostname, directory, pair, sealer=self._sealer)

    async def note_failure(self, hostname: Name, *, failures: int, retry_at: datetime) -> None:
        """Note the number of *failures* in a row, and that the next attempt is due at *retry_at*; end the lease."""
        await self._database.write(_note_failure, hostname, failures=failures, retry_at=retry_at)

    async def give_up(self, hostname: Name) -> None:
        """End the lease without a result."""
        await self._database.write(_give_up, hostname)


def _account_key(connection: Connection, directory: str, new: bytes, *, sealer: Sealer | None) -> bytes:
    found = _find_account_key(connection, directory)
    if found is None:
        key = _sealed(new.decode(), _account(directory), sealer)
        insert_if_absent(connection, acme_accounts, {"directory": directory, "key": key})
        found = _find_account_key(connection, directory)
    assert found is not None  # noqa: S101  # inserted just now, by this process or by another one
    if _is_locked(found, sealer):
        if sealer is None:
            raise Invalid(_NO_KEY_FILE)
        found = new.decode()
    if sealer is not None and not is_sealed(found):
        _put_account_key(connection, directory, sealer.seal(found, _account(directory)))
    return _opened(found, _account(directory), sealer).encode()


def _find(connection: Connection, hostname: Name, *, sealer: Sealer | None) -> OwnCertificate:
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


def _seal(connection: Connection, sealer: Sealer) -> int:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")  # overwrites the old keys in pages that become free
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


def _begin(connection: Connection, hostname: Name, *, holder: UUID, lease: timedelta, now: datetime) -> bool:
    insert_if_absent(connection, certificates, {"hostname": hostname, "failures": 0})
    present = _now(connection)
    is_free = certificates.c.busy_until.is_(None) | (certificates.c.busy_until <= literal(present, Instant))
    begun = connection.execute(
        update(certificates)
        .where(certificates.c.hostname == hostname, is_free)
        .values(attempted_at=now, busy_until=present + lease, busy_by=holder)
    )
    return begun.rowcount == 1


def _go_on(connection: Connection, hostname: Name, *, holder: UUID, lease: timedelta) -> None:
    mine = (certificates.c.hostname == hostname) & (certificates.c.busy_by == holder)
    connection.execute(update(certificates).where(mine).values(busy_until=_now(connection) + lease))


def _keep(connection: Connection, hostname: Name, directory: str, pair: KeyPair, *, sealer: Sealer | None) -> None:
    key = _sealed(pair.key.decode(), _host(hostname), sealer)
    _end(connection, hostname, directory=directory, chain=pair.chain.decode(), key=key, failures=0)


def _note_failure(connection: Connection, hostname: Name, *, failures: int, retry_at: datetime) -> None:
    _end(connection, hostname, failures=failures, retry_at=retry_at)


def _end(connection: Connection, hostname: Name, *, retry_at: datetime | None = None, **values: object) -> None:
    connection.execute(
        update(certificates).where(certificates.c.hostname == hostname).values(_FREE | {"retry_at": retry_at} | values)
    )


def _give_up(connection: Connection, hostname: Name) -> None:
    connection.execute(update(certificates).where(certificates.c.hostname == hostname).values(_FREE))


_FREE: dict[str, object] = {"busy_until": None, "busy_by": None}


def _now(connection: Connection) -> datetime:
    """Return the time of the database's clock, which measures the leases."""
    return datetime.fromtimestamp(connection.execute(select(database_clock())).scalar_one(), UTC)


_NO_KEY_FILE = (
    "the private keys in the database are encrypted: name the key file that they were encrypted with in "
    "dns.update.key_file, the same file on every node"
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
    """Return when the certificate was issued; None if it is damaged."""
    try:
        return x509.load_pem_x509_certificate(chain.encode()).not_valid_before_utc
    except ValueError:
        return None


def _find_account_key(connection: Connection, directory: str) -> str | None:
    return connection.scalar(select(acme_accounts.c.key).where(acme_accounts.c.directory == directory))


def _put_account_key(connection: Connection, directory: str, key: str) -> None:
    connection.execute(update(acme_accounts).where(acme_accounts.c.directory == directory).values(key=key))
