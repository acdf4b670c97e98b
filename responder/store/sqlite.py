"""
SQLite: one file and one writer. Readers never wait for the writer, because of the write-ahead log.

Work runs on ordinary threads, one transaction as a whole. aiosqlite sends each step of each statement to its thread and
back, which makes a transaction of ten statements four times as slow.
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
from responder.foreign import system_reason
from responder.store.database import Database, Work

P = ParamSpec("P")
T = TypeVar("T")

READERS = 4
"""Threads for reading, each with its own connection."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that writes, such as a command while the service runs."""

BUSY_PAUSE = 0.01
"""Seconds between two attempts where SQLite itself does not wait."""

_SUFFIXES = ("", "-wal", "-shm")
"""The suffixes of SQLite's files: the database, its write-ahead log, and the index of the log."""

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
"""Texts for SQLite's result codes (https://www.sqlite.org/rescode.html). *setting* is where the path is set."""


class SQLite(Database):
    """
    The database file that *url* names, which comes from *setting*.

    If *read_only* is set, nothing in it can be changed, and text that is not UTF-8 is read with surrogates (PEP 383).
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
        # An empty file is not opened, because SQLite would delete the write-ahead log next to it, which may be in use.
        return await _on(self._readers, lambda: self._path.exists() and self._path.stat().st_size > 0)

    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _on(self._readers, lambda: self._run(self._engine, lambda db: work(db, *args, **kwargs)))

    async def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _on(self._writer, lambda: self._write(lambda db: work(db, *args, **kwargs)))

    async def migrate(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _on(self._writer, lambda: self._migrate(lambda db: work(db, *args, **kwargs)))

    async def stream(self, work: Work[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        # A separate thread keeps the steps in order, with the close as the last one, even after an exception here.
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
        await asyncio.to_thread(self._readers.shutdown)  # a connection that is in use would stay open
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
        """Move the content of the write-ahead log to the database, so that the next write finds room in the log."""
        with suppress(SQLAlchemyError, sqlite3.Error), self._engine.connect() as connection:
            _pragma(connection, "wal_checkpoint(PASSIVE)")

    def _migrate(self, work: Callable[[Connection], T]) -> T:
        with self._explaining(), self._writing.connect() as connection:
            # To alter a table means to replace it. With foreign keys on, dropping the old table would delete the rows
            # that refer to it (https://www.sqlite.org/lang_altertable.html, section 7). They cannot be turned off
            # inside a transaction.
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
                # SQLite creates its other files with the mode of this one, and with its owner if root creates them.
                atomicfile.create(self._path, b"", of_directory=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CLOEXEC))  # its errors are clearer than those of SQLite
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
        return [f"all users of this machine can access the database: run chmod o-rwx {shlex.join(exposed)}"]

    def _check_files(self) -> None:
        """
        Raise `StoreUnavailable` if a file is no longer the one that this process has open. Old connections would go on
        with the file that was deleted or moved, and new ones with the file that has taken its place.
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
            f"file:{quote(str(self._path))}?mode={self._mode}",  # never creates the file; only `_create` does
            uri=True,
            timeout=BUSY_TIMEOUT,
            # Transactions begin in `_begin`, and not implicitly before some of the statements.
            isolation_level=None,
            # The pool gives a connection to one thread at a time.
            check_same_thread=False,
            cached_statements=256,
        )
        if self._mode == "ro":
            # SQLite does not check that text is UTF-8; one wrong text of the other program must not stop the import.
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
        """Turn exceptions of the driver and the operating system into `StoreUnavailable` with a text for people."""
        try:
            try:
                yield
            except (SQLAlchemyError, sqlite3.Error) as error:
                self._check_files()
                reason = _explain(error).format(setting=self._setting)
                raise StoreUnavailable(f"cannot use the database {self._path}: {reason}") from error
        except OSError as error:
            raise StoreUnavailable(
                f"cannot open the database {self._path}: {system_reason(error)}: "
                f"check {self._setting}, and that this user may write there"
            ) from error


async def _on(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log. SQLite itself does not wait here for another process that does the same."""
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
    # A writer takes the lock at the beginning. A transaction that reads first and takes the lock later cannot wait for
    # it, and fails if it is taken (https://www.sqlite.org/lang_transaction.html, section 2.2).
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
    """Return the name of SQLite's result code."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorname", type(cause).__name__)


def _identity(file: Path, *, may_be_empty: bool) -> _Identity | None:
    """Return what identifies *file*; None if it does not exist, or is empty and *may_be_empty* is not set."""
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (status.st_dev, status.st_ino) if status.st_size or may_be_empty else None
