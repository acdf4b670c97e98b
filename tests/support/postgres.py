"""
A PostgreSQL server of the tests' own, from Debian's package: on a Unix socket, in a directory of its own, gone after.

Import `database_url` for an empty database of either kind. The server is one for all: `conftest` has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.support.requirements import lacking

_numbers = count()

_EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
"""


class PostgresServer:
    """A running server; *directory* holds its data and its socket."""

    def __init__(self, binaries: Path, directory: Path, port: int = 5432) -> None:
        self._binaries = binaries
        self._directory = directory
        self._login = ("-h", str(directory), "-p", str(port), "-U", "postgres")
        self._empty: list[str] = []

    @property
    def data(self) -> Path:
        """The directory of the cluster."""
        return self._directory / "data"

    def initialize(self) -> None:
        """Make an empty cluster."""
        self._run("initdb", "-D", "data", "-U", "postgres", "--auth=trust", "--no-sync", "--no-instructions")

    def start(self, *settings: str) -> None:
        """Returns when it accepts connections. *settings* are as in "fsync=on"."""
        # Loses data if the machine dies, not if a process is killed.
        usual = ("listen_addresses=", f"unix_socket_directories={self._directory}", "fsync=off")
        options = " ".join(f"-c {setting}" for setting in (*usual, *settings))
        self._run("pg_ctl", "start", "--wait", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        """Returns when it is gone, without having written anything more: as a kill of all its processes."""
        self._run("pg_ctl", "stop", "--wait", "-D", "data", "-m", "immediate")

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        return self._url(self._create())

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run a *statement* as the superuser, and return what it prints."""
        return self._run("psql", *self._login, "-qtAc", statement, database).strip()

    def name(self, url: str) -> str:
        """The name of the database at *url*."""
        return url.partition("@/")[2].partition("?")[0]

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database, to be left as one likes: emptying it takes a tenth of making another one."""
        name = self._empty.pop() if self._empty else self._create()
        yield self._url(name)
        self.execute(_EMPTY, name)
        self._empty.append(name)

    def _create(self) -> str:
        name = f"test{next(_numbers)}"
        self._run("createdb", *self._login, name)
        return name

    def _url(self, name: str) -> str:
        return f"postgresql+asyncpg://postgres@/{name}?host={self._directory}"

    def _run(self, program: str, *arguments: str) -> str:
        root = os.geteuid() == 0  # PostgreSQL refuses to run as root; the package made a user for it
        done = subprocess.run(
            [self._binaries / program, *arguments],
            cwd=self._directory,
            user="postgres" if root else None,
            group="postgres" if root else None,
            extra_groups=[] if root else None,
            stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{program} failed: {(done.stderr or b'').decode()}"
        return (done.stdout or b"").decode()


def binaries() -> Path:
    """Where the programs of Debian's package are; skips by name without it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else lacking("PostgreSQL is not installed (apt-get install postgresql)")


@contextmanager
def place() -> Iterator[Path]:
    """A directory for a server, gone at the end."""
    # Not pytest's own directory: the server's user may not enter it, and a socket's path must be short.
    directory = Path(tempfile.mkdtemp(prefix="responder-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def new_server(*settings: str) -> Iterator[PostgresServer]:
    """A server with these *settings*, gone at the end; skips by name without Debian's package."""
    programs = binaries()
    with place() as directory:
        server = PostgresServer(programs, directory)
        server.initialize()
        server.start(*settings)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server for the whole session."""
    with new_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of one kind after the other."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'database' / 'responder.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.database() as url:
        yield url
