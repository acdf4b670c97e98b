"""`responder db`: the schema of the database."""

from __future__ import annotations

import asyncio

import click

from responder.cli.context import OUTPUT, Context, print_json
from responder.config import Settings
from responder.files.keyfile import read_key
from responder.store import SchemaState, Sealer, Store


@click.group()
def db() -> None:
    """Check and upgrade the database."""


@db.command()
@click.pass_obj
def upgrade(context: Context) -> None:
    """Upgrade the database schema, or make a new database. Make a backup first."""
    database = context.settings.database
    state = asyncio.run(Store.upgrade(database.url))
    if state is SchemaState.ABSENT:
        click.echo(f"responder: made a new database: {database.shown_url}", err=True)
    click.echo("the database schema is up to date")
    # Nodes of the former version, which cannot decrypt keys, may still be running.
    if state is SchemaState.BEHIND and database.path is None:
        click.echo("when every node has this version, run this command again: it encrypts private keys in the database")
    elif number := asyncio.run(_seal_keys(context.settings)):
        click.echo(f"encrypted private keys in the database: {number}")


@db.command()
@OUTPUT
@click.pass_obj
def check(context: Context, output: str) -> None:
    """
    Read the whole database, and check that this version can use it. Nothing is created or changed.

    The exit status is 1 if the database is damaged or has another schema.
    """
    state, warnings = asyncio.run(Store.examine(context.settings.database.url))
    good = state in (SchemaState.CURRENT, SchemaState.ABSENT)
    for warning in warnings:
        click.echo(f"responder: warning: {warning}", err=True)
    if output == "json":
        print_json({"schema": state.name.lower(), "meaning": state.value})
    else:
        click.echo(f"{'' if good else 'responder: '}the database is {state.value}{_FIXES.get(state, '')}", err=not good)
    if not good:
        raise SystemExit(1)


_FIXES = {
    SchemaState.BEHIND: ": make a backup, then run responder db upgrade",
    SchemaState.AHEAD: ": install the version that last used it, or a newer one",
    SchemaState.FOREIGN: ": use a separate database for the responder",
}


async def _seal_keys(settings: Settings) -> int:
    """Encrypt the private keys in the database that are not encrypted, if there is a key file. Returns their number."""
    path = settings.tsig_key_file
    if path is None or not path.exists():
        return 0
    store = await Store.open(settings.database.url, sealer=Sealer(read_key(path)))
    try:
        return await store.certificates.seal()
    finally:
        await store.close()
