"""PgBouncer in transaction mode, in front of a PostgreSQL server: each transaction may get another connection to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.ports import free_port
from tests.support.postgres import place

from .programs import Program, require, running

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
"""


@contextmanager
def pooler(server: int) -> Iterator[tuple[str, Program]]:
    """A pooler for the server at a port, as the beginning of a URL; and the program."""
    program, port = require("pgbouncer"), free_port()
    with place() as directory:
        settings = directory / "pgbouncer.ini"
        settings.write_text(_CONFIGURATION.format(server=server, port=port))
        user: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(settings, "postgres")
            user = ["-u", "postgres"]
        with running([program, *user, str(settings)], directory) as process:
            yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}", process
