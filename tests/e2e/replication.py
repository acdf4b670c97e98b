"""
A primary PostgreSQL server and its streaming standby, on loopback ports, as one cluster that fails over.

What a cluster manager such as Patroni does is done by the test: promotion, and keeping an old primary away.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, binaries, place

from .programs import Process, processes, wait_until


class Server(PostgresServer):
    """One server of the cluster, which listens on a *port* of the loopback address."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.port = free_port()
        super().__init__(programs, directory, self.port)

    def start(self, *settings: str) -> None:
        super().start("listen_addresses=127.0.0.1", f"port={self.port}", "max_connections=60", *settings)

    def copy(self, primary: Server) -> None:
        """Become a standby of *primary*, which is not started yet."""
        source = ("-h", str(primary.data.parent), "-p", str(primary.port), "-U", "postgres")
        self._run("pg_basebackup", *source, "-D", "data", "-R", "-X", "stream", "--checkpoint=fast", "--no-sync")

    def promote(self) -> None:
        """Returns when it can be written."""
        self.execute("SELECT pg_promote()")

    def dump(self, database: str) -> Path:
        """A copy of a database, as `pg_dump` makes it."""
        self._run("pg_dump", *self._login, "-Fc", "-f", "copy", database)
        return self.data.parent / "copy"

    def restore(self, copy: Path, database: str) -> None:
        """Put a copy in the place of a database that is in use, at one moment."""
        self._run("pg_restore", *self._login, "-d", database, "--clean", "--if-exists", "-1", str(copy))

    def process(self, title: str) -> Process:
        """The one with *title* in its command line; waits for it."""
        return wait_until(
            lambda: next((each for each in self._family() if title in each.command), None), f"PostgreSQL has a {title}"
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server."""
        for each in self._family():
            with suppress(ProcessLookupError):
                os.kill(each.pid, number)

    def kill(self) -> None:
        """End every process of it with SIGKILL, as when its machine loses power; returns when they are gone."""
        family = self._family()
        self.signal(signal.SIGKILL)
        wait_until(lambda: not any(each.alive for each in family), "PostgreSQL is gone")
        # As after a boot, no process has its id; here, it may be a zombie until the first process looks after it.
        for lock in (self.data / "postmaster.pid", self.data.parent / f".s.PGSQL.{self.port}.lock"):
            lock.unlink(missing_ok=True)

    def _family(self) -> list[Process]:
        with suppress(FileNotFoundError):
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            return [each for each in processes() if each.pid == pid or each.parent == pid]
        return []


class Cluster:
    """A *primary* and a *standby* of it."""

    def __init__(self, primary: Server, standby: Server) -> None:
        self.primary = primary
        self.standby = standby

    def url(self, database: str) -> str:
        """The URL of a database, wherever its primary is."""
        hosts = "&".join(f"host=127.0.0.1:{each.port}" for each in (self.primary, self.standby))
        return f"postgresql+asyncpg://postgres@/{database}?{hosts}&target_session_attrs=primary"

    def has_standby(self) -> bool:
        """Whether the standby follows the primary."""
        return self.primary.execute("SELECT state FROM pg_stat_replication") == "streaming"

    def wait_for_standby(self) -> None:
        """Return when the standby follows the primary."""
        wait_until(self.has_standby, "the standby follows")

    def replicate(self, *, synchronously: bool) -> None:
        """Whether a commit is acknowledged by the primary only when the standby has it."""
        self.primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{'*' if synchronously else ''}'")
        self.primary.execute("SELECT pg_reload_conf()")
        state = "sync" if synchronously else "async"
        wait_until(
            lambda: self.primary.execute("SELECT sync_state FROM pg_stat_replication") == state, "it replicates so"
        )

    def take_over(self) -> None:
        """Promote the standby; whatever the old primary does, it is no part of the cluster any more."""
        self.standby.promote()
        self.standby.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        self.standby.execute("SELECT pg_reload_conf()")
        self.primary, self.standby = self.standby, self.primary

    def replace_standby(self) -> None:
        """End what was the primary before, and make a new standby in its place."""
        self.standby.kill()
        shutil.rmtree(self.standby.data)
        self.standby.copy(self.primary)
        self.standby.start()
        self.wait_for_standby()

    def detach_standby(self) -> None:
        """Let the standby fall behind from now on."""
        self.standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.standby.execute("SELECT pg_reload_conf()")
        wait_until(lambda: not self.primary.execute("SELECT pid FROM pg_stat_replication"), "it does not follow")


@contextmanager
def new_cluster() -> Iterator[Cluster]:
    """A cluster that replicates asynchronously, gone at the end; skips by name without Debian's package."""
    programs = binaries()
    with ExitStack() as stack:
        primary, standby = (Server(programs, stack.enter_context(place())) for _ in range(2))
        primary.initialize()
        for server in (primary, standby):
            if server is standby:
                standby.copy(primary)
            stack.callback(_end, server)
            server.start()
        cluster = Cluster(primary, standby)
        cluster.wait_for_standby()
        yield cluster


def _end(server: Server) -> None:
    with suppress(FileNotFoundError):
        server.signal(signal.SIGKILL)
