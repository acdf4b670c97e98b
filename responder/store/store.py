"""The store as the rest of the program uses it: one method for each transaction."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from sqlalchemy import Connection, make_url, select
from sqlalchemy.exc import ArgumentError

from responder.dns.zone import Change
from responder.errors import StoreUnavailable
from responder.names import Name
from responder.store import (
    accounts,
    audit,
    certificates,
    grants,
    journal,
    keys,
    migration,
    nodes,
    origin,
    probe,
    schema,
    statics,
    statistics,
    tokens,
    values,
)
from responder.store.accounts import Account
from responder.store.audit import AuditEvent
from responder.store.certificates import OwnCertificate
from responder.store.database import Database, P, T, Work
from responder.store.grants import Unserved
from responder.store.hints import Hint, Hints
from responder.store.migration import SchemaState
from responder.store.nodes import Node, NodeReport
from responder.store.origin import Origin
from responder.store.postgresql import PostgreSQL
from responder.store.pruning import Pruning
from responder.store.sealing import Sealer
from responder.store.sqlite import SQLite
from responder.store.statistics import Statistics
from responder.store.tokens import NewToken
from responder.store.values import Applied, LiveValue
from responder.tls.keypair import KeyPair
from responder.tokens.secret import Digest
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token
from responder.tokens.values import Operation


class Store:
    """An open database with the schema that this program needs. Get one from `Store.open`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sealer: Sealer | None = None
        self._pruning = Pruning(database)
        self._origin: Origin | None = None

    @classmethod
    async def open(cls, url: str, *, auto_upgrade: bool = False, sealer: Sealer | None = None) -> Self:
        """
        Connect to *url*; an empty database gets its tables, an older one is changed only if *auto_upgrade*. If there is
        a *sealer*, it encrypts private keys.

        Any number of processes may do so at once. Raises `StoreUnavailable` or `StoreOutdated`.
        """
        database = _database(url)
        try:
            await database.create()
            if await database.read(migration.schema_state) is not SchemaState.CURRENT:
                await database.migrate(migration.bring_up, upgrade=auto_upgrade)
        except BaseException:
            await database.close()
            raise
        store = cls(database)
        store._sealer = sealer
        return store

    @staticmethod
    async def upgrade(url: str) -> SchemaState:
        """Bring the schema at *url* up to date and return what it was. Raises as `open` does."""
        async with _connected(url) as database:
            await database.create()
            return await database.migrate(migration.bring_up, upgrade=True)

    @staticmethod
    async def check(url: str) -> SchemaState:
        """What `open` would find at *url*; nothing is created or changed. Raises `StoreUnavailable`."""
        async with _connected(url) as database:
            return await _schema_state(database)

    @staticmethod
    async def examine(url: str) -> tuple[SchemaState, list[str]]:
        """As `check`, but everything in there is read, so that damage is found; and what `warnings` has of it."""
        async with _connected(url) as database:
            state = await _schema_state(database)
            if state is SchemaState.ABSENT:
                return state, []
            await database.verify()
            if state is SchemaState.CURRENT:
                await database.read(migration.check_tables)
            return state, await database.warnings()

    async def close(self) -> None:
        """Give every connection back."""
        await self._database.close()

    async def origin(self) -> Origin:
        """When this database was created, and its id."""
        return await self._database.read(origin.find)

    async def warnings(self) -> list[str]:
        """What works, but keeps the database from being as safe as it should be, and how to fix it."""
        return await self._database.warnings()

    async def ping(self) -> None:
        """Prove that the database answers, with the smallest read there is."""
        await self._database.read(_ping)

    async def prove_writable(self) -> None:
        """Prove that changes can be made, with a write of the size of a present. Raises `StoreUnavailable`."""
        await self._database.write(probe.prove)

    async def register_zones(self, digests: Mapping[Name, str | None], *, now: datetime) -> None:
        """
        Make sure that there is a serial for each zone; a new one starts at *now* in seconds.

        *digests* are those of the static records that a new zone begins with, as far as they are known.
        """
        await self._database.write(journal.register, digests, now=now)

    async def begin_statics(self, digests: Mapping[Name, str], *, now: datetime) -> list[Change]:
        """
        Note that a node begins to serve zones with static records of these *digests*.

        A zone that may have been served with other records under its present serial gets a new serial. Returns these
        changes; only the apex is in them. Raises `NotFound` for a zone that was not registered.
        """
        return await self._database.write(statics.begin, digests, now=now)

    async def compare_statics(self, digests: Mapping[Name, str]) -> None:
        """
        Note if a node goes on to serve zones with static records of these *digests* when others have begun to serve
        them with other records.

        It is due before the node publishes the serial that came with the other records.
        """
        await self._database.write(statics.compare, digests)

    async def mint(self, token: NewToken) -> Token:
        """
        Write a new token down. Names that nobody was granted before begin to exist.

        Raises `NameTaken` if another hostname has the challenge name or the hostname has another, `NotFound` for a
        zone that was not registered.
        """
        return await self._database.write(tokens.mint, token)

    async def find_token(self, digest: Digest) -> Token | None:
        """
        The token with a secret of this digest, or None. It may be revoked or expired: `Token.admit` decides.

        A secret that was replaced ends earlier than its token; *expires_at* is then the earlier of the two.
        """
        return await self._database.read(self._here(tokens.find), digest)

    async def find_generation(self, token_id: UUID, generation: int) -> Token | None:
        """As `find_token`, by the number of the secret among those of its token."""
        return await self._database.read(self._here(tokens.find_generation), token_id, generation)

    async def find_bcrypt(self, token_id: UUID) -> bytes | None:
        """The bcrypt hash of the secret of a token that was taken over, until `settle_bcrypt`; None for any other."""
        return await self._database.read(tokens.find_bcrypt, token_id)

    async def settle_bcrypt(self, token_id: UUID, hashed: bytes, digest: Digest) -> None:
        """Keep *digest* instead of the bcrypt hash, now that a secret was shown that matches it."""
        await self._database.write(tokens.settle_bcrypt, token_id, hashed, digest)

    async def token(self, token_id: UUID) -> Token:
        """The token with this id. Raises `NotFound`."""
        return await self._database.read(tokens.by_id, token_id)

    async def token_id(self, beginning: str) -> UUID:
        """The id that begins with this text. Raises `NotFound`, or `Invalid` if there are several."""
        return await self._database.read(tokens.id_of, beginning)

    async def tokens(self) -> list[Token]:
        """All tokens, those revoked or expired too, oldest first."""
        return await self._database.read(tokens.every)

    async def tokens_for(self, hostname: Name) -> list[Token]:
        """All tokens that are granted *hostname*, those revoked or expired too, oldest first."""
        return await self._database.read(tokens.granted, hostname)

    async def revoke(self, token_id: UUID, *, at: datetime) -> None:
        """
        End a token now: the values it presented are removed, names that nobody else is granted cease to exist.

        Revoking it again does nothing. Raises `NotFound`.
        """
        await self._database.write(tokens.revoke, token_id, at=at)

    async def rotate(self, token_id: UUID, digest: Digest, *, at: datetime, grace: timedelta) -> Token:
        """Give a token a new secret; those before it are good for another *grace*. Raises `NotFound`."""
        return await self._database.write(tokens.rotate, token_id, digest, at=at, grace=grace)

    async def allow(self, token_id: UUID, grants: Iterable[Grant], *, at: datetime) -> Token:
        """Grant a token more. Raises as `mint`, or `NotFound`."""
        return await self._database.write(tokens.allow, token_id, grants, at=at)

    async def deny(self, token_id: UUID, names: Iterable[Name], *, at: datetime) -> Token:
        """Take hostnames from a token, with the values that it presented there. Raises `NotFound`."""
        return await self._database.write(tokens.deny, token_id, names, at=at)

    async def take_over(
        self, batch: Sequence[Account], *, serving: Serving, at: datetime, until: datetime, dry_run: bool = False
    ) -> set[UUID]:
        """
        Make those accounts of another server ours that are not yet, and return their ids; their values stay *until*.

        In one transaction; a *dry_run* finds out the same and leaves no trace. Raises as `mint`, for all of them.
        """
        return await self._database.write(
            accounts.take_over, batch, serving=serving, at=at, until=until, dry_run=dry_run
        )

    async def apply(self, batch: Sequence[Operation], *, serving: Serving, now: datetime) -> Applied:
        """
        Carry out presents, cleanups and updates, in order, in one transaction of a constant number of statements.

        An operation that is refused (`Unauthenticated`, `NotCovered`, `NotServed` where *serving* is served,
        `TooManyValues`) has that error as its outcome and does not hinder the others. Meant for batches of up to some
        thousands.
        """
        return await self._database.write(values.apply, batch, serving=serving, now=now)

    async def expire(self, *, now: datetime) -> list[Change]:
        """Remove values whose time is over, a limited number at once: call again until nothing comes back."""
        return await self._database.write(values.expire, now=now)

    async def prune(self, *, now: datetime) -> None:
        """Forget what is too old, or too much, of the audit and the journal, if it is time to look for that."""
        await self._pruning.prune(now)

    async def keep_pruned(self, clock: Callable[[], datetime]) -> None:
        """
        `prune` again and again, for ever. It is done beside presents, which wait for one short transaction at most;
        what fails is tried again.
        """
        await self._pruning.run(clock)

    async def clear(self, challenge_name: Name, value: str | None = None, *, now: datetime) -> list[str]:
        """Remove one value, or all, from a name and return what was removed. Raises `NotFound` if nothing was."""
        return await self._database.write(values.clear, challenge_name, value, now=now)

    async def values(self, token_id: UUID | None = None) -> list[LiveValue]:
        """All values in place, or those at the names that a token is granted, by hostname and age."""
        return await self._database.read(values.live, token_id)

    async def key(self, name: str) -> bytes:
        """32 random octets by that name, the same for every process of every node."""
        return await self._database.write(keys.key, name)

    async def owned(self, hostnames: Iterable[Name]) -> dict[Name, Grant]:
        """The challenge names that some of *hostnames* own by now."""
        return await self._database.read(grants.owned, hostnames)

    async def unserved(self, serving: Serving, *, now: datetime) -> list[Unserved]:
        """The zones that are not served where *serving* is, and that valid tokens have hostnames in."""
        return await self._database.read(grants.unserved, serving, now=now)

    @property
    def seals(self) -> bool:
        """Whether private keys are encrypted before they are stored."""
        return self._sealer is not None

    async def seal_keys(self) -> int:
        """Encrypt private keys that are stored as they are, if there is a key file; returns how many they were."""
        return 0 if self._sealer is None else await self._database.write(certificates.seal, self._sealer)

    async def account_key(self, directory: str, new: bytes) -> bytes:
        """
        The key of our account with the CA at *directory*, in PEM: *new* if there is none yet, or one that was encrypted
        with another key file. Raises `Invalid` if it is damaged, or is encrypted and there is no key file.
        """
        return await self._database.write(certificates.account_key, directory, new, sealer=self._sealer)

    async def certificate(self, hostname: Name) -> OwnCertificate:
        """What is known of our own certificate for *hostname*; nothing, if we never had any."""
        return await self._database.read(certificates.find, hostname, sealer=self._sealer)

    async def begin_certificate(self, hostname: Name, *, holder: UUID, lease: timedelta, now: datetime) -> bool:
        """
        Let *holder* obtain a certificate for as long as the *lease* lasts; False if another holder does so already.

        It goes on with `go_on_certificate`, and ends with `keep_certificate`, `note_failure` or `give_up_certificate`.
        Leases are measured by the clock of the database; *now* is for the record.
        """
        return await self._database.write(certificates.begin, hostname, holder=holder, lease=lease, now=now)

    async def go_on_certificate(self, hostname: Name, *, holder: UUID, lease: timedelta) -> None:
        """Let the *lease* of *holder* begin anew, unless another holder has begun since."""
        await self._database.write(certificates.go_on, hostname, holder=holder, lease=lease)

    async def keep_certificate(self, hostname: Name, directory: str, pair: KeyPair) -> None:
        """Put *pair*, from the CA at *directory*, in the place of the one in use."""
        await self._database.write(certificates.keep, hostname, directory, pair, sealer=self._sealer)

    async def note_failure(self, hostname: Name, *, failures: int, retry_at: datetime) -> None:
        """Obtaining it has failed, so many times in a row; nobody tries again before *retry_at*."""
        await self._database.write(certificates.note_failure, hostname, failures=failures, retry_at=retry_at)

    async def give_up_certificate(self, hostname: Name) -> None:
        """Obtaining it was broken off."""
        await self._database.write(certificates.give_up, hostname)

    async def serials(self) -> dict[Name, int]:
        """
        The serial of every zone: a cheap way to see whether anything changed.

        Raises `StoreUnavailable` if another database is in the place of the one that the first call found.
        """
        if self._origin is None:
            self._origin = await self.origin()
        return await self._database.read(self._here(journal.serials))

    async def changes_since(self, apex: Name, serial: int) -> Change | None:
        """
        The state of every name of a zone that changed after *serial*, as one change; None: take a `snapshot`.

        Raises `NotFound` for a zone that was not registered.
        """
        return await self._database.read(journal.changes_since, apex, serial)

    async def renew_lease(self, report: NodeReport, *, lease: timedelta, take_over: bool = False) -> list[Node]:
        """
        Write what this node serves, make its lease last *lease* from now on, and return all nodes by name.

        Raises `NodeNameTaken` if another running service has that name, unless *take_over*.
        """
        return await self._database.write(self._here(nodes.renew), report, lease=lease, take_over=take_over)

    async def end_lease(self, name: str, instance: str) -> None:
        """End the lease of a node that answers no more queries, so that no other node waits for it."""
        await self._database.write(nodes.end_lease, name, instance)

    async def nodes(self) -> list[Node]:
        """All nodes that were not forgotten, by name."""
        return await self._database.read(nodes.every)

    def hints(
        self, listen_url: str | None, *, name: str, instance: str, heard: Callable[[Hint], object]
    ) -> Hints | None:
        """
        What carries hints between the nodes, for the node *name*; *heard* is called with those of the others.

        *listen_url* is where to listen, None for the database itself. None if there is nobody to hear: SQLite has one
        node, and with an empty *listen_url* the nodes look twice a second, and nothing more.
        """
        return self._database.hints(listen_url, name=name, instance=instance, heard=heard)

    async def forget_node(self, name: str) -> None:
        """Remove a node whose lease has ended. Raises `NotFound`, or `NodeNameTaken` if it is running."""
        await self._database.write(nodes.forget, name)

    async def statistics(self, *, now: datetime) -> Statistics:
        """How many values and tokens there are."""
        return await self._database.read(statistics.take, now)

    def snapshot(self) -> AsyncGenerator[Change, None]:
        """
        Everything that exists, at one moment, in pieces of bounded size: first an empty change for each zone with
        its serial, then its names. A `contextlib.aclosing` around it is due if you may leave it early.
        """
        return self._database.stream(journal.snapshot)

    async def record(self, events: Sequence[AuditEvent]) -> None:
        """Write down what the store did not see itself, such as requests that were refused before they came here."""
        await self._database.write(audit.record, events)

    async def audit(self, since: datetime, hostname: Name | None = None) -> list[AuditEvent]:
        """What happened at or after *since*, oldest first: all of it, or what concerns *hostname*, or its tokens."""
        return await self._database.read(audit.events, since, hostname)

    def _here(self, work: Work[P, T]) -> Work[P, T]:
        """
        *work*, in the database that the first call of `serials` found and in no other. It is for what a service builds
        upon: which tokens there are, what is served, and until when. Raises `StoreUnavailable`.
        """

        def check_and_work(connection: Connection, /, *args: P.args, **kwargs: P.kwargs) -> T:
            if self._origin is not None:
                origin.check(connection, self._origin)
            return work(connection, *args, **kwargs)

        return check_and_work


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Database]:
    database = _database(url)
    try:
        yield database
    finally:
        await database.close()


async def _schema_state(database: Database) -> SchemaState:
    return await database.read(migration.schema_state) if await database.exists() else SchemaState.ABSENT


def _database(url: str) -> Database:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        # Its text would show the URL, and with it the password.
        backend = ""
    if backend == "sqlite":
        return SQLite(parsed)
    if backend == "postgresql":
        return PostgreSQL(parsed)
    raise StoreUnavailable(
        "database.url is no URL of a database we know: write sqlite+aiosqlite:////absolute/path.db "
        "or postgresql+asyncpg://user@host/name"
    )


def _ping(connection: Connection) -> None:
    connection.execute(select(schema.zones.c.id).limit(1))
