"""
What every command starts from: the settings, the store, the ways to end and to print a result. No command is in here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import structlog

from responder.cli.running import is_running
from responder.config import Settings, load
from responder.errors import ResponderError, StoreUnavailable, faults_of

if TYPE_CHECKING:
    from responder.store import Store

T = TypeVar("T")

_log = structlog.get_logger("command")

OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print the result.")


class Access(Enum):
    """What a command does to the database."""

    READ = "nothing: it changes neither what is in there, nor the schema"
    CHANGE = "it changes what is in there"
    CREATE = "it changes what is in there, and makes a database if there is none"


@dataclass
class Context:
    """Where the configuration is; it is read when a command first needs it."""

    config: Path | None

    @cached_property
    def settings(self) -> Settings:
        """Raises `InvalidConfiguration`."""
        return load(self.config, os.environ)

    @asynccontextmanager
    async def store(self, access: Access = Access.READ) -> AsyncIterator[Store]:
        """
        The database. One that is not there is made only by a command that may, and not next to a running service: an
        empty one, because of a typing error in its path, would look as if all tokens were lost, and what is written to
        it would never be served. Raises `StoreUnavailable` or `StoreOutdated`.
        """
        from responder.store import Store

        database = self.settings.database
        if is_new := not await self.has_database():
            self._check_creation(access)
        store = await Store.open(database.url)
        try:
            if is_new:
                click.echo(f"responder: made a new database: {database.shown_url}", err=True)
            if access is not Access.READ:
                await store.register_zones(self.settings.digests, now=datetime.now(UTC))
            yield store
        finally:
            await store.close()

    async def has_database(self) -> bool:
        """Whether there is one, with tables in it. Raises `StoreUnavailable`."""
        from responder.store import SchemaState, Store

        return await Store.check(self.settings.database.url) is not SchemaState.ABSENT

    def with_store(self, work: Callable[[Store], Awaitable[T]], access: Access = Access.READ) -> T:
        """Do *work* with the store (see `store`), from start to finish."""

        async def run() -> T:
            async with self.store(access) as store:
                return await work(store)

        return asyncio.run(run())

    def _check_creation(self, access: Access) -> None:
        """Raise `StoreUnavailable` unless a new database may be made."""
        url = self.settings.database.shown_url
        if is_running(self.settings.admin.listen):
            raise StoreUnavailable(
                f"a service is running, and there is no database ({url}): check database.url, put back the database "
                "that the service had, or restart the service, which makes a new one"
            )
        if access is not Access.CREATE:
            raise StoreUnavailable(
                f"there is no database yet ({url}): check database.url, or make one with responder serve or "
                "responder db upgrade"
            )


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Whoever ends this program gently, by whatever signal, gives the task in here the time to clean up."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # this runs in one
    for number in (signal.SIGTERM, signal.SIGHUP):  # asyncio itself sees to Ctrl-C
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        yield
    except asyncio.CancelledError:
        raise click.Abort from None


@contextmanager
def failures_logged() -> Iterator[None]:
    """What keeps a service from starting is in its log, unless a person at a terminal reads it. Ends with status 1."""
    try:
        yield
    except ResponderError as error:
        if sys.stderr.isatty():
            raise
        for fault in faults_of(error):
            _log.critical("cannot start", reason=fault)
        raise SystemExit(1) from None


def print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns, each row on a line of its own, however long."""
    lines = [columns, *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    aligned = (map(str.ljust, line, widths) for line in lines)
    click.echo("\n".join("  ".join(cells).rstrip() for cells in aligned))


def instant_text(at: datetime | None) -> str:
    """UTC, whatever the time zone of this machine; "never" for what never happens."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at is not None else "never"
