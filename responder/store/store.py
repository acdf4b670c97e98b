"""
The store as the rest of the program uses it: one method for each transaction.

Each operation is documented here. The function of the same purpose in `tokens`, `values`, `grants` and the other
modules of this package is its transaction.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from sqlalchemy import Connection

from responder.dns.zone import Change
from responder.names import Name
from responder.store import (
    accounts,
    audit,
    grants,
    journal,
    keys,
    migration,
    nodes,
    opening,
    origin,
    probe,
    statics,
    statistics,
    tokens,
    values,
)
from responder.store import (
    batch as batches,
)
from responder.store.accounts import Account
from responder.store.audit import AuditEvent
from responder.store.batch import Applied
from responder.store.certificates import Certificates
from responder.store.database import Database, P, T, Work
from responder.store.grants import UnservedZone
from responder.store.hints import Hint, Hints
from responder.store.migration import SchemaState
from responder.store.nodes import Node, NodeReport
from responder.store.origin import Origin
from responder.store.pruning import Pruning
from responder.store.sealing import Sealer
from responder.store.statistics import Statistics
from responder.store.tokens import NewToken
from responder.store.values import LiveValue
from responder.tokens.secret import Digest
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token
from responder.tokens.values import Operation


class Store:
    """
    An open database with the schema that this program needs. Get one from `Store.open`.

    *certificates* has the operations on our own certificates. All methods that use the database raise
    `StoreUnavailable` if it does not answer or cannot be used.
    """

    def __init__(self, database: Database, sealer: Sealer | None = None, by: str | None = None) -> None:
        self.certificates = Certificates(database, sealer)
        self._database = database
        self._pruning = Pruning(database)
        self._origin: Origin | None = None
        self._by = by

    @classmethod
    async def open(
        cls, url: str, *, auto_upgrade: bool = False, sealer: Sealer | None = None, by: str | None = None
    ) -> Self:
        """
        Connect to the database at *url* and create its tables if it is empty. A database with an older schema is
        upgraded only if *auto_upgrade* is set. A *sealer* encrypts the private keys that are stored. *by* is the user
        whom the audit names for what administrators do.

        Several processes may open an empty database at once. Raises `StoreUnavailable` or `StoreOutdated`.
        """
        database = opening.connect(url)
        try:
            await database.create()
            if await database.read(migration.schema_state) is not SchemaState.CURRENT:
                await database.migrate(migration.bring_up, upgrade=auto_upgrade)
        except BaseException:
            await database.close()
            raise
        return cls(database, sealer, by)

    @staticmethod
    async def upgrade(url: str) -> SchemaState:
        """Upgrade the schema at *url* and return the state that it had before. Raises the errors of `open`."""
        async with opening.connected(url) as database:
            await database.create()
            return await database.migrate(migration.bring_up, upgrade=True)

    @staticmethod
    async def check(url: str) -> SchemaState:
        """Return the state of the schema at *url*, without changing anything. Raises `StoreUnavailable`."""
        async with opening.connected(url) as database:
            return await opening.schema_state(database)

    @staticmethod
    async def examine(url: str) -> tuple[SchemaState, list[str]]:
        """
        Return the state of the schema at *url* and the `warnings` of the database, without changing anything.

        All data is read to find damage. Raises `StoreUnavailable` if there is any.
        """
        async with opening.connected(url) as database:
            state = await opening.schema_state(database)
            if state is SchemaState.ABSENT:
                return state, []
            await database.verify()
            if state is SchemaState.CURRENT:
                await database.read(migration.check_tables)
            return state, await database.warnings()

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()

    async def origin(self) -> Origin:
        """Return when this database was created, and its id."""
        return await self._database.read(origin.find)

    async def warnings(self) -> list[str]:
        """Return warnings about settings that put the data at risk, each with the way to fix it."""
        return await self._database.warnings()

    async def ping(self) -> None:
        """Prove with a small read that the database answers. Raises `StoreUnavailable`."""
        await self._database.read(probe.ping)

    async def prove_writable(self) -> None:
        """Prove that changes can be made, with a write of the size of a present. Raises `StoreUnavailable`."""
        await self._database.write(probe.prove)

    async def register_zones(self, digests: Mapping[Name, str | None], *, now: datetime) -> None:
        """
        Create the zones that do not exist yet, each with *now* in seconds since 1970 as its serial.

        *digests* are the digests of the static records that a new zone begins with; None if they are unknown.
        """
        await self._database.write(journal.register, digests, now=now)

    async def begin_statics(self, digests: Mapping[Name, str], *, now: datetime) -> list[Change]:
        """
        Note that a node begins to serve zones with static records of these *digests*.

        A zone that may have been served with other static records under its current serial gets a new serial. Returns
        a change for each such zone, with the apex as its only name. Raises `NotFound` for a zone that does not exist.
        """
        return await self._database.write(statics.begin, digests, now=now)

    async def compare_statics(self, digests: Mapping[Name, str]) -> None:
        """
        Note that a node goes on to serve zones with static records of these *digests*.

        A node has to call this before it publishes a serial that another node may have made for other static records.
        Where the digests differ, the next call of `begin_statics` makes a new serial.
        """
        await self._database.write(statics.compare, digests)

    async def mint(self, token: NewToken) -> Token:
        """
        Store a new token. Challenge names that had no grant before begin to exist.

        Raises `NameTaken` if another hostname owns the challenge name, or if the hostname has another challenge name.
        Raises `NotFound` for a zone that does not exist.
        """
        return await self._database.write(tokens.mint, token, by=self._by)

    async def find_token(self, digest: Digest) -> Token | None:
        """
        Return the token that has a secret with this digest, or None.

        It may be revoked or expired, which `Token.admit` checks. Its *expires_at* is the earlier of the ends of the
        token and of the secret: a secret that was replaced ends before its token.
        """
        return await self._database.read(self._here(tokens.find), digest)

    async def find_generation(self, token_id: UUID, generation: int) -> Token | None:
        """Return the token like `find_token`, by its id and the generation of its secret."""
        return await self._database.read(self._here(tokens.find_generation), token_id, generation)

    async def find_bcrypt(self, token_id: UUID) -> bytes | None:
        """
        Return the bcrypt hash of the secret of a token that was taken over from another server.

        Returns None for other tokens, and after `settle_bcrypt`.
        """
        return await self._database.read(tokens.find_bcrypt, token_id)

    async def settle_bcrypt(self, token_id: UUID, hashed: bytes, digest: Digest) -> None:
        """Replace the bcrypt hash with *digest*, after a client has sent a secret that matches the hash."""
        await self._database.write(tokens.settle_bcrypt, token_id, hashed, digest)

    async def token(self, token_id: UUID) -> Token:
        """Return the token with this id. Raises `NotFound`."""
        return await self._database.read(tokens.by_id, token_id)

    async def token_id(self, beginning: str) -> UUID:
        """Return the token id that begins with this text. Raises `NotFound`, or `Invalid` if there are several."""
        return await self._database.read(tokens.id_of, beginning)

    async def tokens(self) -> list[Token]:
        """Return all tokens, oldest first, including those that are revoked or expired."""
        return await self._database.read(tokens.every)

    async def token_ids(self) -> list[UUID]:
        """Return the ids of all tokens."""
        return await self._database.read(tokens.ids)

    async def tokens_for(self, hostname: Name) -> list[Token]:
        """Return all tokens with a grant for *hostname*, oldest first, including those that are revoked or expired."""
        return await self._database.read(tokens.granted, hostname)

    async def revoke(self, token_id: UUID, *, at: datetime) -> None:
        """
        End a token. Its values are removed, and challenge names without another grant cease to exist.

        Revoking it again does nothing. Raises `NotFound`.
        """
        await self._database.write(tokens.revoke, token_id, at=at, by=self._by)

    async def rotate(self, token_id: UUID, digest: Digest, *, at: datetime, grace: timedelta) -> Token:
        """
        Give a token a new secret. Its earlier secrets stay valid for *grace*, or end at once if that is zero.

        Raises `NotFound`, also for a revoked token.
        """
        return await self._database.write(tokens.rotate, token_id, digest, at=at, grace=grace, by=self._by)

    async def allow(self, token_id: UUID, grants: Iterable[Grant], *, at: datetime) -> Token:
        """Add grants to a token. Raises the errors of `mint`, and `NotFound` if the token is unknown or revoked."""
        return await self._database.write(tokens.allow, token_id, grants, at=at, by=self._by)

    async def deny(self, token_id: UUID, names: Iterable[Name], *, at: datetime) -> Token:
        """
        Remove hostnames from a token, and the values that it presented for them.

        Raises `NotFound` if the token is unknown or revoked, or has no grant for one of the hostnames.
        """
        return await self._database.write(tokens.deny, token_id, names, at=at, by=self._by)

    async def take_over(
        self, batch: Sequence[Account], *, serving: Serving, at: datetime, until: datetime, dry_run: bool = False
    ) -> set[UUID]:
        """
        Store the accounts of another server that are not stored yet, and return their ids. Their values stay *until*.

        All of them are stored in one transaction. A *dry_run* returns the same, and changes nothing. Raises the errors
        of `mint`; then none of them is stored.
        """
        return await self._database.write(
            accounts.take_over, batch, serving=serving, at=at, until=until, dry_run=dry_run, by=self._by
        )

    async def apply(self, batch: Sequence[Operation], *, serving: Serving, now: datetime) -> Applied:
        """
        Carry out presents, cleanups and updates, in order, in one transaction with a constant number of statements.

        A refused operation has its error as outcome, and the others go on: `Unauthenticated`, `NotCovered`,
        `NotServed` if the name is in no zone of *serving*, `NotAChallenge`, `TooManyValues`, `PrerequisiteFailed`.
        Batches may have some thousands of operations.
        """
        return await self._database.write(self._here(batches.apply), batch, serving=serving, now=now)

    async def expire(self, *, now: datetime) -> list[Change]:
        """Remove some of the expired values. Call it again until it returns an empty list."""
        return await self._database.write(self._here(values.expire), now=now)

    async def prune(self, *, now: datetime) -> None:
        """Delete old rows of the audit and the journal, and rows above their limits, if pruning is due."""
        await self._pruning.prune(now)

    async def keep_pruned(self, clock: Callable[[], datetime]) -> None:
        """
        Run `prune` again and again until cancelled, also after a failure.

        A present waits for at most one of its short transactions.
        """
        await self._pruning.run(clock)

    async def clear(self, challenge_name: Name, value: str | None = None, *, now: datetime) -> list[str]:
        """
        Remove *value*, or all values, at a challenge name, and return what was removed.

        Raises `NotFound` if nothing was removed.
        """
        return await self._database.write(values.clear, challenge_name, value, now=now, by=self._by)

    async def values(self, token_id: UUID | None = None) -> list[LiveValue]:
        """Return all stored values, or those at the names that a token has grants for, by hostname and age."""
        return await self._database.read(values.live, token_id)

    async def key(self, name: str) -> bytes:
        """Return the key with that name: 32 random octets, which are the same in every process of every node."""
        return await self._database.write(keys.key, name)

    async def owned(self, hostnames: Iterable[Name]) -> dict[Name, Grant]:
        """Return which of *hostnames* own a challenge name, with that name."""
        return await self._database.read(grants.owned, hostnames)

    async def unserved(self, serving: Serving, *, now: datetime) -> list[UnservedZone]:
        """Return the zones in which valid tokens have hostnames, but which are not zones of *serving*."""
        return await self._database.read(grants.unserved, serving, now=now)

    async def serials(self) -> dict[Name, int]:
        """
        Return the serial of every zone: a cheap way to see whether anything changed.

        Raises `StoreUnavailable` if this is not the database that the first call has found, and `StoreMoved` after a
        standby server has become the primary, until `resume`.
        """
        if self._origin is None:
            self._origin = await self.origin()
        return await self._database.read(self._here(journal.serials))

    async def resume(self, published: Mapping[Name, int], *, now: datetime) -> dict[Name, int]:
        """
        Go on with the database as it is now, which may be an earlier state of it than the one that was *published*.

        The serial of each zone is raised above its published one. Returns the serials; all of it is to be read anew.
        """
        found = await self.origin()
        if self._origin is not None:
            found = replace(self._origin, timeline=max(found.timeline, self._origin.timeline))
        before, self._origin = self._origin, found
        try:
            changes = await self._database.write(self._here(journal.resume), published, now=now)
        except BaseException:
            self._origin = before
            raise
        return {change.apex: change.serial for change in changes}

    async def missing(self, states: Mapping[Name, tuple[str, ...] | None]) -> list[tuple[Name, str]]:
        """Those of the values in *states* that their names do not hold."""
        return await self._database.read(journal.missing, states)

    async def changes_since(self, apex: Name, serial: int) -> Change | None:
        """
        Return the state of every name of a zone that changed after *serial*, as one change.

        Returns None if the journal does not reach back that far: take a `snapshot`. Raises `NotFound` for a zone that
        does not exist.
        """
        return await self._database.read(journal.changes_since, apex, serial)

    async def renew_lease(self, report: NodeReport, *, lease: timedelta, take_over: bool = False) -> list[Node]:
        """
        Store *report*, let the lease of the node end *lease* from now, and return all nodes by name.

        Raises `NodeNameTaken` if another service has that name and a live lease, unless *take_over* is set.
        """
        return await self._database.write(self._here(nodes.renew), report, lease=lease, take_over=take_over)

    async def end_lease(self, name: str, instance: str) -> None:
        """End the lease of a node that answers no more queries, so that no other node waits for it."""
        await self._database.write(nodes.end_lease, name, instance)

    async def nodes(self) -> list[Node]:
        """Return all nodes by name, except those that were removed."""
        return await self._database.read(nodes.every)

    def hints(
        self, listen_url: str | None, *, name: str, instance: str, heard: Callable[[Hint], object]
    ) -> Hints | None:
        """
        Return the exchange of hints for the node *name*; it calls *heard* with each hint of another node.

        It listens at *listen_url*, or at the URL of this database if it is not given. Returns None without hints:
        SQLite has only one node, and with an empty *listen_url* the nodes look twice a second instead.
        """
        return self._database.hints(listen_url, name=name, instance=instance, heard=heard)

    async def forget_node(self, name: str) -> None:
        """Remove a node whose lease has ended. Raises `NotFound`, or `NodeNameTaken` if it is running."""
        await self._database.write(nodes.forget, name)

    async def statistics(self, *, now: datetime) -> Statistics:
        """Count values and tokens."""
        return await self._database.read(statistics.take, now)

    def snapshot(self) -> AsyncGenerator[Change, None]:
        """
        Yield all names that exist, as they are at one moment, in changes of bounded size: first an empty change with
        the serial of each zone, then the names. Use `contextlib.aclosing` if you may leave the loop early.
        """
        return self._database.stream(journal.snapshot)

    async def record(self, events: Sequence[AuditEvent]) -> None:
        """Write *events* to the audit, such as requests that were refused before they reached the store."""
        await self._database.write(audit.record, events)

    async def audit(self, since: datetime, hostname: Name | None = None) -> list[AuditEvent]:
        """
        Return the audit events at or after *since*, oldest first: all, or those that concern *hostname*.

        These include events without a hostname of the tokens that have or had a grant for it, such as early refusals.
        """
        return await self._database.read(audit.events, since, hostname)

    def _here(self, work: Work[P, T]) -> Work[P, T]:
        """
        Return *work* with a check that this is the database that the first call of `serials` found.

        It is for what a service relies on: tokens, serials and leases. Another database in the same place raises
        `StoreUnavailable`, another primary server of the same one `StoreMoved`.
        """

        def check_and_work(connection: Connection, /, *args: P.args, **kwargs: P.kwargs) -> T:
            if self._origin is not None:
                origin.check(connection, self._origin)
            return work(connection, *args, **kwargs)

        return check_and_work
