"""
The control process's parts put together for tests: a real store, publisher and nameserver's end of the feed, in one
event loop and one directory.

The fixture `running` is that; import `url` with it.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import dns.rcode
import pytest

from responder import feed
from responder.challenges import Challenges, Pace
from responder.config import Settings, load
from responder.dns.zone import Change, Zones
from responder.errors import StoreUnavailable
from responder.feed import Publisher, peer
from responder.names import Name
from responder.nodes import Membership, Myself, Nodes
from responder.store import Applied, NewToken, Operation, Statistics, Store
from responder.tokens.hostname import challenge_name
from responder.tokens.network import Network
from responder.tokens.secret import Digest, Secret, digest, mint_secret
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token
from tests.support.feeds import connect_answering, nobody_is_killed
from tests.support.processes import PATIENCE, eventually
from tests.support.zones import ask

APEX = Name.parse("acme.example.com")
SERVING = Serving(apexes=frozenset([APEX]))
DIGEST = "5f"
"""Of the static records, as the node says."""

LIFETIME = timedelta(hours=24)

QUICK = Pace(follow=0.01, sweep=0.01, settled=0.02)
"""The writer looks around all the time."""

CONFIGURATION = """
[[zones]]
name = "acme.example.com"
hostmaster = "hostmaster@example.com"
records = '''
api 3600 IN A 192.0.2.7
'''
[zones.nameservers]
"ns1.acme.example.com" = ["192.0.2.1", "2001:db8::1"]
"ns.elsewhere.example.net" = []

[dns]
listen = ["127.0.0.1:{dns}"]

[api]
listen = ["127.0.0.1:{api}"]

[admin]
listen = ["127.0.0.1:{admin}"]

[database]
url = "sqlite+aiosqlite:///{database}"
"""


def write_configuration(directory: Path, *, dns: int = 0, api: int = 0, admin: int = 0) -> Path:
    """A configuration file in *directory*, with its database there, too. Port 0 lets the system choose."""
    path = directory / "responder.toml"
    path.write_text(CONFIGURATION.format(dns=dns, api=api, admin=admin, database=directory / "responder.db"))
    return path


def read_settings(directory: Path) -> Settings:
    """The settings that `write_configuration` has written."""
    return load(write_configuration(directory), {})


@cache
def _blank_database() -> bytes:
    """A database with its tables, as a file, and not a new one: making them takes longer than most tests."""
    directory = Path(mkdtemp(prefix="responder-test-"))
    try:
        asyncio.run(Store.upgrade(f"sqlite+aiosqlite:///{directory}/blank.db"))
        with closing(sqlite3.connect(directory / "blank.db")) as database, database:
            database.execute("UPDATE origin SET created_at = 0")
        return (directory / "blank.db").read_bytes()
    finally:
        shutil.rmtree(directory)


def new_database(directory: Path) -> str:
    """The URL of a new SQLite database in *directory*. Not to be called inside an event loop for the first time."""
    (directory / "responder.db").touch(0o600)
    (directory / "responder.db").write_bytes(_blank_database())
    return f"sqlite+aiosqlite:///{directory}/responder.db"


def rows(directory: Path) -> list[Any]:
    """Everything in the database but the audit events and the times of last use."""
    with connect(directory) as database:
        return [
            database.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("zones", "hostnames", "secrets", "grants", "challenge_values", "changes")
        ] + database.execute("SELECT id, expires_at, revoked_at FROM tokens ORDER BY id").fetchall()


@contextmanager
def connect(directory: Path) -> Iterator[sqlite3.Connection]:
    """The database in *directory*, for looks and for damage that no method of the store can do."""
    database = sqlite3.connect(directory / "responder.db")
    try:
        with database:
            yield database
    finally:
        database.close()


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now


class BrittleStore(Store):
    """A store that can be told to fail or to wait, and that remembers the batches it was asked to apply."""

    fault: Exception | None = None
    apply_fault: Exception | None = None
    full: Exception | None = None
    proofs = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batches: list[Sequence[Operation]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @contextmanager
    def away(self) -> Iterator[None]:
        """For as long as this lasts the database is unavailable."""
        self.fault = StoreUnavailable("cannot use the database /var/secret/path.db: the disk is full")
        try:
            yield
        finally:
            self.fault = None

    @contextmanager
    def filled(self) -> Iterator[None]:
        """For as long as this lasts the database can be read, and takes no change."""
        self.full = self.apply_fault = StoreUnavailable("cannot use the database x.db: the disk is full: make room")
        try:
            yield
        finally:
            self.full = self.apply_fault = None

    def break_apply(self, fault: Exception) -> None:
        """From now on, `apply` alone fails."""
        self.apply_fault = fault

    async def apply(self, batch: Sequence[Operation], *, serving: Serving, now: datetime) -> Applied:
        self.batches.append(batch)
        await self.gate.wait()
        self._fail()
        if self.apply_fault is not None:
            raise self.apply_fault
        return await super().apply(batch, serving=serving, now=now)

    async def find_token(self, digest: Digest) -> Token | None:
        self._fail()
        return await super().find_token(digest)

    async def expire(self, *, now: datetime) -> list[Change]:
        self._fail()
        return await super().expire(now=now)

    async def serials(self) -> dict[Name, int]:
        self._fail()
        return await super().serials()

    async def statistics(self, *, now: datetime) -> Statistics:
        self._fail()
        return await super().statistics(now=now)

    async def prove_writable(self) -> None:
        self.proofs += 1
        self._fail()
        if self.full is not None:
            raise self.full
        await super().prove_writable()

    async def ping(self) -> None:
        self._fail()
        await super().ping()

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


@dataclass
class Control:
    """What runs in a control process, and the nameserver that follows it."""

    directory: Path
    store: BrittleStore
    publisher: Publisher
    challenges: Challenges
    clock: Clock
    writer: asyncio.Task[None]
    snapshots: list[Zones] = field(default_factory=list)

    async def mint(
        self,
        *hostnames: str,
        expires_at: datetime | None = None,
        allow_from: tuple[Network, ...] = (),
        account_thumbprint: str | None = None,
        store: Store | None = None,
    ) -> tuple[Secret, Token]:
        """A new token, written to the database as the command line does it."""
        secret = mint_secret()
        new = NewToken(
            digest=digest(secret),
            grants=tuple(map(grant, hostnames)),
            created_at=self.clock.now,
            expires_at=expires_at,
            allow_from=allow_from,
            account_thumbprint=account_thumbprint,
        )
        return secret, await (store or self.store).mint(new)

    def values(self, hostname: str) -> set[str] | None:
        """The values that the DNS shows for *hostname*; None if its challenge name does not exist."""
        return self.shown(grant(hostname).challenge_name)

    def shown(self, name: Name) -> set[str] | None:
        """The values that the DNS shows at *name*; None if it does not exist."""
        reply = ask(self.snapshots[-1], str(name), "TXT")
        if reply.rcode() == dns.rcode.NXDOMAIN:
            return None
        return {rdata.strings[0].decode() for rrset in reply.answer for rdata in rrset}

    @asynccontextmanager
    async def other_store(self) -> AsyncIterator[Store]:
        """The same database as another process has it open."""
        store = await Store.open(f"sqlite+aiosqlite:///{self.directory}/responder.db")
        try:
            yield store
        finally:
            await store.close()


def grant(hostname: str) -> Grant:
    """The usual grant for *hostname*."""
    name = Name.parse(hostname)
    return Grant(hostname=name, challenge_name=challenge_name(name, APEX), apex=APEX)


@asynccontextmanager
async def control(directory: Path, url: str, *, pace: Pace = QUICK) -> AsyncIterator[Control]:
    """A control process's parts and a nameserver, both in this event loop, with the database at *url*."""
    store = await BrittleStore.open(url)
    try:
        with patient():
            async with _control(directory, store, pace) as running:
                yield running
    finally:
        await store.close()


def lone_node(store: Store) -> Nodes:
    """The only node of its database, named a."""
    myself = Myself(
        name="a",
        instance="first",
        address="127.0.0.1",
        version="0",
        schema_min="0",
        schema_max="0",
        statics={APEX: DIGEST},
        lease=timedelta(minutes=1),
    )
    return Nodes(Membership(store, myself, is_alone=True), 2.0)


@asynccontextmanager
async def _control(directory: Path, store: BrittleStore, pace: Pace) -> AsyncIterator[Control]:
    await store.register_zones({APEX: None}, now=datetime.now(UTC))
    await store.begin_statics({APEX: DIGEST}, now=datetime.now(UTC))
    before, clock = asyncio.all_tasks(), Clock()
    published = await store.serials()
    statics = read_settings(directory).statics
    publisher = Publisher(statics, store.snapshot, nameservers=1, kill=nobody_is_killed)
    feeds = feed.Feeds()
    await connect_answering(publisher, feeds)
    writer = Challenges(
        store,
        publisher,
        lone_node(store),
        serving=SERVING,
        published=published,
        lifetime=LIFETIME,
        clock=clock,
        pace=pace,
    )
    running = Control(directory, store, publisher, writer, clock, asyncio.create_task(writer.run()))
    following = asyncio.create_task(feed.follow(feeds, running.snapshots.append, lambda _: None))
    try:
        await until(lambda: bool(running.snapshots))
        yield running
    finally:
        store.gate.set()
        running.writer.cancel()
        await asyncio.gather(running.writer, return_exceptions=True)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        # asyncio loses sight of a connection that it accepts while the server closes: let there be none under way.
        await until(lambda: asyncio.all_tasks() <= {*before, asyncio.current_task()})
        await publisher.stop()


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as *condition* holds; fail if it does not in any reasonable time."""
    await eventually(condition, "what this test waits for")


@contextmanager
def patient() -> Iterator[None]:
    """No nameserver is killed because the machine is busy: here, it is in the process that would kill it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer, "ACK_DEADLINE", PATIENCE)
        yield


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A new database."""
    return new_database(tmp_path)


@pytest.fixture
async def running(tmp_path: Path, url: str) -> AsyncIterator[Control]:
    """A control process's parts, and the nameserver that follows."""
    async with control(tmp_path, url) as running:
        yield running
