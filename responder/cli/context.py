"""
What every command starts from: the settings, the store, the ways to end and to print a result. No command is in here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import structlog

from responder.config import Settings, load
from responder.errors import ResponderError, StoreUnavailable, faults_of

if TYPE_CHECKING:
    from responder.store import Store

T = TypeVar("T")

_log = structlog.get_logger("command")

OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print the result.")


@dataclass
class Context:
    """Where the configuration is; it is read when a command first needs it."""

    config: Path | None

    @cached_property
    def settings(self) -> Settings:
        """Raises `InvalidConfiguration`."""
        return load(self.config, os.environ)

    async def open_store(self, *, create: bool = False) -> Store:
        """
        The database, with the configured zones in it. One that is not there is made only on request: an empty list,
        because of a typing error in its path, would look as if everything were lost. Raises `StoreUnavailable`.
        """
        from responder.store import SchemaState, Store

        database = self.settings.database
        if not create and await Store.check(database.url) is SchemaState.ABSENT:
            raise StoreUnavailable(
                "there is no database yet: check database.url, or make one with responder serve or responder token mint"
            )
        store = await Store.open(database.url, auto_upgrade=database.auto_upgrade)
        await store.register_zones([zone.name for zone in self.settings.zones], now=datetime.now(UTC))
        return store

    def with_store(self, work: Callable[[Store], Awaitable[T]], *, create: bool = False) -> T:
        """Do *work* with the store (see `open_store`), from start to finish."""

        async def run() -> T:
            store = await self.open_store(create=create)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())


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
