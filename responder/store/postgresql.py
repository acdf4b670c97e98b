"""
PostgreSQL, which several nodes can share.

Work runs on SQLAlchemy's asynchronous engine, where ordinary functions can wait for asyncpg.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from asyncpg import (  # type: ignore[import-untyped]
    ClientConfigurationError,
    InterfaceError,
    InternalClientError,
    PostgresError,
    connect,
)
from sqlalchemy import URL, Connection, ExceptionContext, NullPool, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from responder.errors import Invalid, StoreUnavailable
from responder.store.connecting import Connector, NoPrimary
from responder.store.database import Database, Work
from responder.store.hints import Hint, Hints
from responder.tls import distrust

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection from the server, or from our own pool."""

STATEMENT_TIMEOUT = 8.0
"""
Seconds to wait for one statement, including the locks of other nodes: ACME clients wait for ten seconds or more.
Migrations have no limit.
"""

MIGRATION_LOCK = 0x7265_7370_6F6E_6465
"""The key of the advisory lock of a process that migrates: "responde" in ASCII."""

MAX_PORT = 65_535
"""A TCP port has 16 bits (RFC 9293, section 3.1)."""

_DURABLE = text(
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)
"""
The first statement of a transaction that writes: its commit waits for the disk, even if the role or the database has
synchronous_commit = off. All other values wait for the disk as well, and some for more, so they are kept. It is not a
setting of the connection, because PgBouncer refuses such a connection, or passes the setting on to the next client.
"""

_UNSAFE = text("SELECT current_setting('fsync') = 'off'")

_OURS = {"dsn", "loop", "timeout", "command_timeout", "connection_class", "record_class", "server_settings"}
"""Parameters of `asyncpg.connect` that are set here, or that cannot be text."""

_NUMBERS = {
    "statement_cache_size",  # 0 for this and the next one, for a pooler without prepared statements
    "prepared_statement_cache_size",  # SQLAlchemy's own
    "max_cached_statement_lifetime",
    "max_cacheable_statement_size",
}
_OPTIONS = signature(connect).parameters.keys() - _OURS | _NUMBERS
"""The options that a URL may have: the parameters of `asyncpg.connect` that are text or `_NUMBERS`."""

_FAULTS = {
    "25006": "it is read-only: write the primary server into {setting}, and set default_transaction_read_only = off",
    "28": "it refuses the login: check user and password in {setting}, and pg_hba.conf",
    "3D000": "there is no such database: create it (createdb)",
    "42P01": "a table is missing: restore the database, or create the tables with responder db upgrade",
    "42501": "permission denied: make this user the owner of the database",
    "53100": "its disk is full: make room on it",
    "53300": "it has too many connections: raise max_connections",
    "53": "it has run out of resources: see its log",
    "55P03": "another process keeps it locked: find and stop that process",
    "57014": "a statement took longer than the server allows: raise its statement_timeout, or find what slows it down",
    "57": "it is starting or shutting down: try again",
    "08": "the connection was lost: try again",
    "XX001": "it is damaged: restore it from a backup",
    "XX002": "an index in it is damaged: run REINDEX DATABASE there, or restore it from a backup",
}
"""Texts for SQLSTATEs and their classes (PostgreSQL documentation, appendix A). *setting* is where the URL is set."""


class PostgreSQL(Database):
    """The database that *url* names, which comes from *setting*. It must exist, but need not have tables."""

    def __init__(self, url: URL, *, setting: str = "database.url") -> None:
        self._setting = setting
        self._url = url.set(drivername="postgresql+asyncpg")
        _check(self._url, setting)
        hosts = url.query.get("host") or "localhost"
        where = _shown(url.host) or (hosts if isinstance(hosts, str) else ", ".join(hosts))
        self._where = f"{_shown(url.database) or url.username} on {where}"
        self._unconfirmed: WeakSet[Any] = WeakSet()
        arguments = _connect_args(url, command_timeout=STATEMENT_TIMEOUT)
        self._connector = Connector(self._url, arguments, timeout=CONNECT_TIMEOUT)
        self._engine = create_async_engine(
            self._url,
            pool_size=5,
            pool_timeout=CONNECT_TIMEOUT,
            # No request fails because the server was restarted before it.
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=_connect_args(url, async_creator_fn=self._connect),
        )
        event.listen(self._engine.sync_engine, "handle_error", _leave_server)
        # All statements of one reader must see the same state.
        self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._writing = _writing(self._engine)

    async def create(self) -> None:
        """Do nothing: creating a database on a server needs rights that this program should not have."""

    async def exists(self) -> bool:
        return True

    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._explaining():
            async with self._reading.connect() as connection:
                return await connection.run_sync(work, *args, **kwargs)

    async def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._explaining():
            async with self._writing.begin() as connection:
                raw = (await connection.get_raw_connection()).driver_connection
                result = await connection.run_sync(work, *args, **kwargs)
            if raw in self._unconfirmed:
                self._unconfirmed.discard(raw)
                raise _unknown(self._where)
            return result

    async def migrate(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        arguments = _connect_args(
            self._url, async_creator_fn=Connector(self._url, _connect_args(self._url), timeout=CONNECT_TIMEOUT).connect
        )
        engine = create_async_engine(self._url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
        with self._explaining():
            async with _writing(engine).begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                return await connection.run_sync(work, *args, **kwargs)

    async def stream(self, work: Work[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        with self._explaining():
            async with self._reading.connect() as connection:
                results = work(connection.sync_connection)  # type: ignore[arg-type]  # not None while connected
                while (result := await connection.run_sync(lambda _: next(results, None))) is not None:
                    yield result

    async def verify(self) -> None:
        await self.read(_read_tables)

    async def warnings(self) -> list[str]:
        return [_NO_FSYNC] if await self.read(lambda connection: connection.scalar(_UNSAFE)) else []

    def hints(
        self, listen_url: str | None, *, name: str, instance: str, heard: Callable[[Hint], object]
    ) -> Hints | None:
        if listen_url == "":
            return None
        url = self._url if listen_url is None else make_url(listen_url).set(drivername="postgresql+asyncpg")
        options = _connect_args(url)
        options["server_settings"] |= {"application_name": "responder hints"}
        return Hints(
            Connector(url, options, timeout=CONNECT_TIMEOUT).connect, name=name, instance=instance, heard=heard
        )

    async def close(self) -> None:
        await self._engine.dispose()

    async def _connect(self, **_: Any) -> Any:
        """
        Return a connection for the pool. A connection whose commit was not replicated to the servers in
        synchronous_standby_names is noted in *_unconfirmed*.
        """
        connection = await self._connector.connect(command_timeout=STATEMENT_TIMEOUT)

        def note(_connection: Any, message: Any) -> None:
            if message.sqlstate == _WARNING and "synchronous replication" in str(message):
                self._unconfirmed.add(connection)

        connection.add_log_listener(note)
        return connection

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turn exceptions of the driver and the operating system into `StoreUnavailable` with a text for people."""
        try:
            yield
        except (SQLAlchemyError, PostgresError, InterfaceError, InternalClientError, OSError) as error:
            reason = _explain(error).format(setting=self._setting)
            raise StoreUnavailable(f"cannot use the database {self._where}: {reason}") from error


def _shown(part: str | None) -> str:
    """*part* of a URL without what may be the end of a password with a special character that is not written as %XX."""
    return (part or "").rpartition("@")[2]


_NO_FSYNC = (
    "PostgreSQL runs with fsync = off: a crash of its machine can lose acknowledged values or damage the whole "
    "database: set fsync = on in its configuration"
)


_WARNING = "01000"
"""The SQLSTATE of the warning that a commit stopped waiting for its replication; the commit itself reports success."""

_DEMOTED = ("25006", "57P0", "08")
"""SQLSTATEs, or their beginnings, of a server that is no longer the primary server, or is stopping."""


def _leave_server(context: ExceptionContext) -> None:
    """
    Close all connections of the pool if their server is no longer the primary, or does not answer in time.

    The former still answers reads; with the latter, each connection would cost its own timeout.
    """
    state = str(getattr(context.original_exception, "sqlstate", None) or "")
    if state.startswith(_DEMOTED) or isinstance(context.original_exception, TimeoutError):
        context.is_disconnect = True


def _unknown(where: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the database {where} has not confirmed a commit, because its replication was interrupted: try again, and "
        "check the standby servers"
    )


def _writing(engine: AsyncEngine) -> AsyncEngine:
    """Return *engine* for transactions that write. Their locks of rows need exactly this isolation level."""
    writing = engine.execution_options(isolation_level="READ COMMITTED")
    event.listen(writing.sync_engine, "begin", lambda connection: connection.execute(_DURABLE))
    return writing


def _read_tables(connection: Connection) -> None:
    """Read every row, because the server checks each page that it reads from its disk."""
    quote = connection.dialect.identifier_preparer.quote
    for table in inspect(connection).get_table_names():
        connection.execute(text(f"SELECT count(whole) FROM {quote(table)} AS whole"))  # noqa: S608  # it is quoted


def _check(url: URL, setting: str) -> None:
    """Raise `Invalid` for a URL that the libraries cannot use. The text does not show parts that may be secret."""
    if unknown := url.query.keys() - _OPTIONS:
        raise Invalid(
            f"{setting} has an option that asyncpg does not know: {min(unknown)} (sslmode of libpq is called ssl here)"
        )
    for option in sorted(url.query.keys() & _NUMBERS):
        if not re.fullmatch(r"[0-9]{1,9}", str(url.query[option])):
            raise Invalid(f"{setting} has an option that must be a number: {option}")
    try:
        _, found = url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError):
        found = {"port": None}
    if not all(isinstance(port, int) and 0 < port <= MAX_PORT for port in _listed(found.get("port", 5432))):
        raise Invalid(f"{setting} has an invalid port: write one from 1 to {MAX_PORT}, usually 5432")
    hosts = _listed(found.get("host", "localhost"))
    if len(hosts) > 1 and url.query.get("target_session_attrs") not in ("primary", "read-write"):
        raise Invalid(f"{setting} names several servers, but only one takes writes: add target_session_attrs=primary")
    if not all(0 < len(label) < 64 for host in hosts for label in _labels(host)):
        raise Invalid(f"{setting} has an invalid host: write its name or its address")


def _listed(value: Any) -> list[Any]:
    """Return *value* as a list; it is one already if a URL names several servers."""
    return value if isinstance(value, list) else [value]


def _labels(host: str) -> list[str]:
    """Return the labels of a host name; the path of a socket has none."""
    return [] if host.startswith("/") else host.removesuffix(".").split(".")


def _connect_args(url: URL, **more: Any) -> dict[str, Any]:
    numbers = {option: int(str(url.query[option])) for option in url.query.keys() & _NUMBERS}
    return {"timeout": CONNECT_TIMEOUT, "server_settings": {"application_name": "responder"}, **numbers, **more}


def _explain(error: Exception) -> str:
    cause: BaseException = error.orig or error if isinstance(error, DBAPIError) else error
    state: str | None = getattr(cause, "sqlstate", None)
    for length in (5, 2):
        if state and state[:length] in _FAULTS:
            return _FAULTS[state[:length]]
    if state:
        return f"a statement failed (SQLSTATE {state}): report this as a fault of the program"
    if isinstance(cause, PoolTimeoutError):
        return "all connections are busy: try again"
    if isinstance(cause, TimeoutError):
        return "it does not answer in time: check PostgreSQL and the network"
    if isinstance(cause.__cause__, ClientConfigurationError):  # SQLAlchemy has wrapped it in an exception of its own
        return "asyncpg cannot use an option in {setting}: see the parameters of its connect()"
    if isinstance(cause, OSError):
        return _explain_network(cause)
    return f"the connection failed ({type(cause).__name__}): check that PostgreSQL runs, and {{setting}}"


def _explain_network(cause: OSError) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        root = "name the file of its issuer in PGSSLROOTCERT, or write it to ~/.postgresql/root.crt"
        return f"its certificate {distrust.describe(cause, name='fix the host in {setting}', issuer=root)}"
    if isinstance(cause, ConnectionError) and "SSL" in str(cause):
        return "it does not accept TLS: set ssl = on there, or remove ssl=... from {setting}"
    if isinstance(cause, NoPrimary):
        return "it answers, but it is not a primary server: start the primary server, or promote a standby"
    return "nothing answers there: check that PostgreSQL runs, and {setting}"
