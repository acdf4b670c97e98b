"""
Hints between nodes: a node has committed a change, or has applied one. PostgreSQL's LISTEN and NOTIFY carry them.

A hint only causes another node to read the tables at once. Without hints, it reads them twice a second. So a lost hint
costs time, but no fault here can make a change fail. NOTIFY takes a lock of the whole server until its transaction
ends, so it is sent on a separate connection, after the commit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import structlog

from responder.errors import StoreUnavailable
from responder.logs import Outage

CHANNEL = "responder"

PING_INTERVAL = 2.0
"""Seconds between queries that test the listening connection: a server that has disappeared does not close it."""

DEADLINE = 2.0
"""Seconds for one statement on these connections."""

RECONNECT = (0.2, 5.0)
"""Seconds until a lost connection is made again: at first and at most."""

_FAULTS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_OURS = "SELECT count(*) FROM nodes WHERE name = $1 AND instance = $2"

_log = structlog.get_logger("nodes")

Connect = Callable[[], Awaitable[Any]]
"""Makes a new connection in autocommit mode."""


class Hint(Enum):
    """What another node has done."""

    COMMITTED = "committed"
    APPLIED = "applied"


class Hints:
    """
    Receives the hints of other nodes, and sends those of the node *name*, which is this *instance* of the service.

    *heard* is called with each hint. It is also called with `Hint.COMMITTED` after each connect, because hints that
    were sent before are lost.
    """

    def __init__(self, connect: Connect, *, name: str, instance: str, heard: Callable[[Hint], object]) -> None:
        self._connect = connect
        self._name = name
        self._instance = instance
        self._heard = heard
        self._unsent: set[Hint] = set()
        self._wake = asyncio.Event()

    def send(self, hint: Hint) -> None:
        """Send *hint* to all other nodes as soon as possible. Equal hints that wait are sent once."""
        self._unsent.add(hint)
        self._wake.set()

    async def run(self) -> None:
        """Listen and send until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._keep(self._listen, "cannot receive hints from other nodes", "receiving hints again")
            )
            group.create_task(self._keep(self._notify, "cannot send hints to other nodes", "sending hints again"))

    async def _keep(self, work: Callable[[Any], Awaitable[None]], lost: str, found: str) -> None:
        """Run *work* on a connection, and again on a new one after each fault, with growing delays."""
        outage, delay = Outage(_log, f"{lost}: the database is read twice a second instead", found), RECONNECT[0]
        while True:
            connection = None
            try:
                connection = await self._connect()
                await self._check(connection)
                outage.is_over()
                delay = RECONNECT[0]
                await work(connection)
            except StoreUnavailable as fault:
                outage.goes_on(str(fault))
            except _FAULTS as fault:
                outage.goes_on(type(fault).__name__)
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311  # jitter, no secret
            delay = min(2 * delay, RECONNECT[1])

    async def _check(self, connection: Any) -> None:
        """Raise `StoreUnavailable` unless the connection is to the database that has the lease of this node."""
        try:
            found = await connection.fetchval(_OURS, self._name, self._instance, timeout=DEADLINE)
        except asyncpg.UndefinedTableError:
            found = 0
        if not found:
            raise StoreUnavailable(
                "database.listen_url is the URL of another database than database.url: write the same database there"
            )

    async def _listen(self, connection: Any) -> None:
        """Receive hints until the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, self._receive)
        self._heard(Hint.COMMITTED)
        while not lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_INTERVAL):
                    await lost.wait()
            await connection.fetchval("SELECT 1", timeout=DEADLINE)

    def _receive(self, _connection: Any, _process: int, _channel: str, payload: str) -> None:
        kind, _, instance = payload.partition(" ")
        if instance != self._instance:
            with suppress(ValueError):  # a node of a later version may have more kinds
                self._heard(Hint(kind))

    async def _notify(self, connection: Any) -> None:
        """Send hints until the connection is lost."""
        await connection.execute("SET synchronous_commit = off", timeout=DEADLINE)
        while True:
            while self._unsent:
                hint = next(iter(self._unsent))
                await connection.execute(
                    "SELECT pg_notify($1, $2)", CHANNEL, f"{hint.value} {self._instance}", timeout=DEADLINE
                )
                self._unsent.discard(hint)
            self._wake.clear()
            await self._wake.wait()
