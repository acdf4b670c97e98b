"""
SQLite: one file, one writer, readers that never wait for it (write-ahead log).

Work runs on plain threads. aiosqlite sends every single step of a statement to its thread and back, which makes a
transaction of ten statements four times as slow as sending the transaction as a whole.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sqlite3
import stat
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import ParamSpec, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from responder.errors import StoreUnavailable
from responder.files import atomicfile, directory
from responder.store.database import Database, Work

P = ParamSpec("P")
T = TypeVar("T")

READERS = 4
"""Threads, each with a connection, for reading beside the writer."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that is writing (a command beside the service)."""

BUSY_PAUSE = 0.01
"""Seconds between two tries where SQLite itself does not wait."""

_SUFFIXES = ("", "-wal", "-shm")
"""Of the files that SQLite keeps: the database itself, its write-ahead log, and the index of that."""

_Identity = tuple[int, int]

_FAULTS = {
    "SQLITE_BUSY": "another process keeps it locked: find and stop that process",
    "SQLITE_CANTOPEN": "it cannot be opened: check that it exists and that this user may read and write it",
    "SQLITE_CORRUPT": "it is damaged: restore it from a backup",
    "SQLITE_FULL": "the disk is full: make room on it",
    "SQLITE_IOERR_SHMSIZE": "the disk is full: make room on it",
    "SQLITE_IOERR": "reading or writing it failed: check the disk",
    "SQLITE_NOTADB": "it is not an SQLite database: check {setting}",
    "SQLITE_PERM": "permission denied: check that this user may read and write it",
    "SQLITE_READONLY": "it cannot be written: check that this user may write the file and its directory",
}
"""What to do about SQLite's result codes (https://www.sqlite.org/rescode.html). *setting* is where its place is set."""


class SQLite(Database):
    """
    The database file that *url* names, which comes from *setting*. If *read_only*, nothing in it can change.

    What is not UTF-8 in there comes with surrogates then (PEP 383).
    """

    def __init__(self, url: URL, *, setting: str = "database.url", read_only: bool = False) -> None:
        if not url.database or url.database == ":memory:":
            raise StoreUnavailable(f"{setting} names no file: write sqlite+aiosqlite:////absolute/path.db")
        self._setting = setting
        self._mode = "ro" if read_only else "rw"
        self._path = Path(url.database)
        self._files: dict[Path, _Identity | None] = {Path(f"{url.database}{suffix}"): None for suffix in _SUFFIXES}
        self._engine = create_engine(
            "sqlite://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=READERS + 1,
            max_overflow=-1,
            hide_parameters=True,
        )
        event.listen(self._engine, "begin", _begin)
        self._writing = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(READERS, "store-reader")

    async def create(self) -> None:
        await _on(self._writer, self._create)

    async def exists(self) -> bool:
        # An empty file is not opened: SQLite would delete the write-ahead log next to it, which may still be in use.
        return await _on(self._readers, lambda: self._path.exists() and self._path.stat().st_size > 0)

    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _on(self._readers, lambda: self._run(self._engine, lambda db: work(db, *args, **kwargs)))

    async def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _on(self._writer, lambda: self._write(lambda db: work(db, *args, **kwargs)))

    async def migrate(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _on(self._writer, lambda: self._migrate(lambda db: work(db, *args, **kwargs)))

    async def stream(self, work: Work[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        # A thread of its own, so that whatever happens here the steps stay in order and the close comes last.
        thread = ThreadPoolExecutor(1, "store-stream")
        results = self._iterate(work)
        try:
            while (result := await _on(thread, lambda: next(results, None))) is not None:
                yield result
        finally:
            thread.submit(results.close)
            thread.shutdown(wait=False)

    async def verify(self) -> None:
        await self.read(self._verify)

    async def warnings(self) -> list[str]:
        return await _on(self._readers, self._warnings)

    async def close(self) -> None:
        await asyncio.to_thread(self._readers.shutdown)  # a connection that is out would not be closed with the others
        await _on(self._writer, self._engine.dispose)
        self._writer.shutdown(wait=False)

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        with self._explaining(), engine.connect() as connection, connection.begin():
            self._check_files()
            return work(connection)

    def _write(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._run(self._writing, work)
        except StoreUnavailable as fault:
            if fault.__cause__ is not None and _code(fault.__cause__) == "SQLITE_FULL":
                self._empty_log()
            raise

    def _empty_log(self) -> None:
        """Move what the write-ahead log holds to the database, so that the next write finds room in it."""
        with suppress(SQLAlchemyError, sqlite3.Error), self._engine.connect() as connection:
            _pragma(connection, "wal_checkpoint(PASSIVE)")

    def _migrate(self, work: Callable[[Connection], T]) -> T:
        with self._explaining(), self._writing.connect() as connection:
            # Altering a table means replacing it; with foreign keys on, dropping the old one would delete rows
            # that refer to it (https://www.sqlite.org/lang_altertable.html, section 7). Not possible once begun.
            _pragma(connection, "foreign_keys=OFF")
            try:
                with connection.begin():
                    return work(connection)
            finally:
                _pragma(connection, "foreign_keys=ON")

    def _iterate(self, work: Work[[], Iterator[T]]) -> Generator[T, None, None]:
        with self._explaining(), self._engine.connect() as connection, connection.begin():
            self._check_files()
            yield from work(connection)

    def _create(self) -> None:
        with self._explaining():
            if not self._path.exists():
                directory.make(self._path.parent)
                # SQLite gives the files that it makes next to this one the same mode, and when root makes them, the
                # same owner.
                atomicfile.create(self._path, b"", of_directory=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CLOEXEC))  # whose errors are clearer than SQLite's
            with closing(self._connect()) as connection:
                _write_ahead(connection)
            self._files[self._path] = _identity(self._path, may_be_empty=False)

    def _verify(self, connection: Connection) -> None:
        if connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar() != "ok":
            raise StoreUnavailable(f"cannot use the database {self._path}: {_FAULTS['SQLITE_CORRUPT']}")

    def _warnings(self) -> list[str]:
        exposed = [str(file) for file in self._files if file.exists() and file.stat().st_mode & stat.S_IRWXO]
        if not exposed:
            return []
        return [f"the database is open to all users of this machine: chmod o-rwx {shlex.join(exposed)}"]

    def _check_files(self) -> None:
        """
        Raise `StoreUnavailable` if a file is no longer the one that this process has open: old connections would go on
        with what was deleted or moved away, and new ones with what is in its place.
        """
        for file, known in self._files.items():
            found = _identity(file, may_be_empty=file != self._path)
            if known is None:
                self._files[file] = found
            elif known != found:
                raise StoreUnavailable(
                    f"the database file {file} was deleted, moved or replaced while in use: put it back, or restart "
                    "the service"
                )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode={self._mode}",  # never creates: that is for `_create` alone
            uri=True,
            timeout=BUSY_TIMEOUT,
            # Transactions begin where we say so, not before some statements and not before others.
            isolation_level=None,
            # The pool hands a connection to one thread at a time.
            check_same_thread=False,
            cached_statements=256,
        )
        if self._mode == "ro":
            # Another program's: SQLite never looks whether text is UTF-8, and one that is not must not cost the rest.
            connection.text_factory = lambda octets: octets.decode(errors="surrogateescape")
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turn the errors of drivers and operating system into one line that says what to do."""
        try:
            try:
                yield
            except (SQLAlchemyError, sqlite3.Error) as error:
                self._check_files()
                reason = _explain(error).format(setting=self._setting)
                raise StoreUnavailable(f"cannot use the database {self._path}: {reason}") from error
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else "it cannot be reached"
            raise StoreUnavailable(
                f"cannot open the database {self._path}: {reason}: "
                f"check {self._setting}, and that this user may write there"
            ) from error


async def _on(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn to the write-ahead log. SQLite does not wait here for another process that is about to do the same."""
    deadline = monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or monotonic() >= deadline:
                raise
            sleep(BUSY_PAUSE)
        else:
            return


def _begin(connection: Connection) -> None:
    # A writer takes the lock at once: a transaction that reads first and is then refused the lock cannot wait for
    # it, it can only fail (https://www.sqlite.org/lang_transaction.html, section 2.2).
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _pragma(connection: Connection, setting: str) -> None:
    dbapi_connection = connection.connection.dbapi_connection
    if dbapi_connection is not None:
        dbapi_connection.cursor().execute(f"PRAGMA {setting}")


def _explain(error: Exception) -> str:
    code = _code(error)
    known = _FAULTS.get(code) or _FAULTS.get("_".join(code.split("_")[:2]))
    return known or f"a statement failed ({code}): report this as a fault of the program"


def _code(error: BaseException) -> str:
    """The name of SQLite's result code."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorname", type(cause).__name__)


def _identity(file: Path, *, may_be_empty: bool) -> _Identity | None:
    """What distinguishes that file from any other of its name; None if there is none, or nothing is left in it."""
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (status.st_dev, status.st_ino) if status.st_size or may_be_empty else None
