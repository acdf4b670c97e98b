"""
What all commands share: the settings, the store, how a command ends, and how it prints a result. No command is in here.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from responder.errors import InvalidConfiguration, ResponderError, StoreUnavailable, faults_of

if TYPE_CHECKING:
    from responder.store import Store

T = TypeVar("T")

_log = structlog.get_logger("command")

OUTPUT = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format of the result."
)


class Access(Enum):
    """What a command does to the database."""

    READ = "it only reads: it changes neither rows nor the schema"
    CHANGE = "it changes rows"
    CREATE = "it changes rows, and makes a database if there is none"


@dataclass
class Context:
    """The path of the configuration, which is read when a command first needs it."""

    config: Path | None

    @cached_property
    def settings(self) -> Settings:
        """Raises `InvalidConfiguration`."""
        return load(self.config, os.environ)

    @asynccontextmanager
    async def store(self, access: Access = Access.READ) -> AsyncIterator[Store]:
        """
        The database. A missing one is made only by a command with `Access.CREATE`, if no service is running: if the
        path has a typing error, an empty database would look as if all tokens were lost, and values written to it would
        never be served. Raises `StoreUnavailable` or `StoreOutdated`.
        """
        from responder.store import Store

        database = self.settings.database
        if is_new := not await self.has_database():
            self._check_creation(access)
        store = await Store.open(database.url, by=user())
        try:
            if is_new:
                click.echo(f"responder: made a new database: {database.shown_url}", err=True)
            if access is not Access.READ:
                await store.register_zones(self.settings.digests, now=datetime.now(UTC))
            yield store
        finally:
            await store.close()

    async def has_database(self) -> bool:
        """Whether there is a database with tables in it. Raises `StoreUnavailable`."""
        from responder.store import SchemaState, Store

        return await Store.check(self.settings.database.url) is not SchemaState.ABSENT

    def with_store(self, work: Callable[[Store], Awaitable[T]], access: Access = Access.READ) -> T:
        """Open the store (see `store`), do *work* with it, and close it."""

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
    """A signal that ends this program cancels the task in the block, which then has the time to clean up."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # this runs in one
    for number in (signal.SIGTERM, signal.SIGHUP):  # asyncio itself handles Ctrl-C
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        yield
    except asyncio.CancelledError:
        raise click.Abort from None


@contextmanager
def failures_logged() -> Iterator[None]:
    """Log why a service cannot start, and end with status 1; on a terminal, the error is printed instead."""
    try:
        yield
    except ResponderError as error:
        if sys.stderr.isatty():
            raise
        file = {"file": error.file} if isinstance(error, InvalidConfiguration) and error.file else {}
        for fault in faults_of(error):
            _log.critical("cannot start", reason=fault, **file)
        raise SystemExit(1) from None


def user() -> str:
    """Who runs this command, for the audit: the user of the process. What sudo reports is only a hint."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"uid {number}"
    before = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo: {before})" if before != name and re.fullmatch(r"[\w.-]{1,32}", before) else name


def print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2))


def instant_text(at: datetime | None) -> str:
    """An instant in UTC; "never" for None."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at is not None else "never"
