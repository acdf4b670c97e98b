"""`responder token list`, `show` and `revoke`."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import click

from responder.cli.context import OUTPUT, Access, Context, instant_text, print_json, print_table
from responder.cli.parameters import TokenId
from responder.cli.tokens import describing
from responder.store import Store
from responder.tokens.token import Token


@click.command("list")
@OUTPUT
@click.pass_obj
def list_tokens(context: Context, output: str) -> None:
    """List all tokens, oldest first, without their secrets."""
    serving = context.settings.serving
    tokens = context.with_store(lambda store: store.tokens())
    if output == "json":
        print_json([describing.as_json(token, serving) for token in tokens])
        return
    print_table(
        ["ID", "HOSTNAMES", "STATE", "GENERATION", "PINNED", "CREATED", "LAST USED", "EXPIRES", "DESCRIPTION"],
        (
            [
                str(token.id),
                describing.shorten([str(grant.hostname) for grant in token.grants]),
                describing.state(token, serving),
                str(token.generation),
                "yes" if token.account_thumbprint else "no",
                instant_text(token.created_at),
                instant_text(token.last_used_at),
                instant_text(token.expires_at),
                token.description or "",
            ]
            for token in tokens
        ),
    )


@click.command()
@click.argument("id", type=TokenId())
@OUTPUT
@click.pass_obj
def show(context: Context, id: str, output: str) -> None:  # noqa: A002  # becomes the ID of the usage text
    """Show one token: its hostnames, its limits, and the CNAMEs that it needs. ID may be the first 6 characters."""

    async def find(store: Store) -> Token:
        return await store.token(await store.token_id(id))

    shown = context.with_store(find)
    serving = context.settings.serving
    if output == "json":
        describing.warn(shown, serving)
        print_json(describing.as_json(shown, serving))
        return
    for line in describing.lines(shown, serving):
        click.echo(line)


@click.command()
@click.argument("id", type=TokenId())
@OUTPUT
@click.pass_obj
def revoke(context: Context, id: str, output: str) -> None:  # noqa: A002  # becomes the ID of the usage text
    """Revoke a token for good, and remove the values that it has set."""

    async def end(store: Store) -> UUID:
        token_id = await store.token_id(id)
        await store.revoke(token_id, at=datetime.now(UTC))
        return token_id

    revoked = context.with_store(end, Access.CHANGE)
    if output == "json":
        print_json({"revoked": str(revoked)})
        return
    click.echo(f"revoked {revoked}; its values are removed from DNS within a second")
