"""`responder import`: imports the accounts of another server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from responder.cli import takeover
from responder.cli.context import OUTPUT, Access, Context, print_json
from responder.cli.parameters import Hostname
from responder.cli.takeover import Destination, Part, Remark
from responder.config import Settings, ZoneSettings
from responder.errors import InvalidRequest
from responder.names import Name
from responder.store import Account, Store
from responder.store.acmedns import AcmeDnsDatabase


@click.group("import")
def import_() -> None:
    """Import the accounts of another server."""


@import_.command("acme-dns")
@click.argument("database_url", metavar="DATABASE-URL")
@click.option("--dry-run", is_flag=True, help="List the accounts that would be imported, and change nothing.")
@click.option(
    "--zone",
    type=Hostname(),
    help="Our zone that replaces the domain of acme-dns. Required if there are several zones.",
)
@OUTPUT
@click.pass_obj
def acme_dns(context: Context, database_url: str, *, dry_run: bool, zone: Name | None, output: str) -> None:
    """
    Import the accounts of an acme-dns server. They keep their names, passwords and current values.

    DATABASE-URL is the `connection` setting of acme-dns: the path of its SQLite file, or postgres://USER@HOST/DATABASE.
    The URL is visible in the process list, so put the password into PGPASSWORD or ~/.pgpass.

    Accounts that were imported before are not changed, so an import that was interrupted can be run again.
    """
    chosen = _zone(context.settings, zone)
    destination = Destination(
        apex=chosen.name,
        serving=context.settings.serving,
        taken=frozenset(rrset.owner for rrset in chosen.static.rrsets),
        lifetime=timedelta(seconds=context.settings.values.lifetime),
        dry_run=dry_run,
    )
    summary = _Summary(dry_run=dry_run, keep=output == "json")

    async def work(store: Store) -> None:
        source = await AcmeDnsDatabase.open(database_url)
        try:
            with _progress(await source.count()) as advance:
                async with aclosing(takeover.take_over(source, store, destination)) as parts:
                    async for part in parts:
                        summary.add(part)
                        advance(part.size)
        finally:
            await source.close()

    context.with_store(work, Access.READ if dry_run else Access.CREATE)
    summary.print()
    if summary.refused:
        raise SystemExit(1)


def _zone(settings: Settings, apex: Name | None) -> ZoneSettings:
    """The zone to import into. Raises `InvalidRequest`."""
    served = ", ".join(str(zone.name) for zone in settings.zones)
    if apex is None and len(settings.zones) > 1:
        raise InvalidRequest(
            [f"there are several zones ({served}): choose the one that replaces the domain of acme-dns, with --zone"]
        )
    for zone in settings.zones:
        if apex in (None, zone.name):
            return zone
    raise InvalidRequest([f"--zone {apex} is not served here ({served})"])


@dataclass(slots=True, kw_only=True)
class _Summary:
    """Counts the accounts so far. What concerns a single account is printed at once, and kept only for JSON."""

    dry_run: bool
    keep: bool
    taken_over: int = 0
    values: int = 0
    known: int = 0
    refused: int = 0
    accounts: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: Part) -> None:
        self.taken_over += len(part.taken_over)
        self.values += sum(len(account.values) for account in part.taken_over)
        self.known += part.known
        self.refused += len(part.refused)
        for account in part.taken_over if self.dry_run else ():
            self._report_account(_describe(account))
        for remark in part.remarks:
            self._report_remark(remark, "imported in part")
        for remark in part.refused:
            self._report_remark(remark, "not imported")

    def print(self) -> None:
        """Print the counts."""
        if self.keep:
            counts = {name: getattr(self, name) for name in ("dry_run", "taken_over", "values", "known", "refused")}
            print_json(counts | {"remarks": self.remarks} | ({"accounts": self.accounts} if self.dry_run else {}))
            return
        verb = "would import" if self.dry_run else "imported"
        click.echo(f"{verb} {_count(self.taken_over, 'account')} with {_count(self.values, 'value')}", nl=False)
        click.echo(f"; imported before: {self.known}; not imported: {self.refused}")

    def _report_account(self, described: dict[str, Any]) -> None:
        if self.keep:
            self.accounts.append(described)
            return
        networks = ", ".join(described["allow_from"]) or "anywhere"
        click.echo(f"{described['id']}  {described['challenge_name']}  from {networks}", nl=False)
        click.echo("".join(f"  {value}" for value in described["values"]))

    def _report_remark(self, remark: Remark, what: str) -> None:
        # The name comes from the other database, and may have control characters, which must not reach a terminal.
        username = remark.username if remark.username.isprintable() else ascii(remark.username)
        click.echo(f"responder: {what}: {username}: {remark.text}", err=True)
        if self.keep:
            self.remarks.append({"username": remark.username, "what": what, "text": remark.text})


def _describe(account: Account) -> dict[str, Any]:
    token = account.token
    return {
        "id": str(token.id),
        "challenge_name": str(token.grants[0].challenge_name),
        "allow_from": [str(network) for network in token.allow_from],
        "values": list(account.values),
        "last_used_at": account.last_used_at.isoformat() if account.last_used_at else None,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class _Advance:
    """Advances a progress bar."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("accounts", total=total)

    def __call__(self, number: int) -> None:
        self._progress.advance(self._task, number)


@contextmanager
def _progress(total: int) -> Iterator[_Advance]:
    """A progress bar on stderr, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Advance(progress, total)
