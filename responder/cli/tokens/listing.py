"""`responder token list`, `show` and `revoke`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import click

from responder.cli.context import OUTPUT, Access, Context, instant_text, print_json
from responder.cli.parameters import Duration, Hostname, TokenId
from responder.cli.tables import WIDE, print_table, short_ids
from responder.cli.tokens import describing
from responder.names import Name
from responder.store import Store
from responder.tokens.token import State, Token


@click.command("list")
@click.option("--host", type=Hostname(), help="Show only the tokens that cover this hostname.")
@click.option(
    "--expiring", type=Duration(), help="Show only the active tokens that expire within this time, such as 30d."
)
@WIDE
@OUTPUT
@click.pass_obj
def list_tokens(
    context: Context,
    host: Name | None,
    expiring: timedelta | None,
    wide: bool,  # noqa: FBT001  # an option's name
    output: str,
) -> None:
    """List all tokens, oldest first, without their secrets."""
    serving = context.settings.serving

    async def read(store: Store) -> tuple[list[Token], list[UUID]]:
        found = await store.tokens() if host is None else await store.tokens_for(host)
        return found, await store.token_ids()

    found, ids = context.with_store(read)
    now = datetime.now(UTC)
    tokens = [token for token in found if expiring is None or _ends_before(token, now + expiring, now)]
    if output == "json":
        print_json([describing.as_json(token, serving) for token in tokens])
        return
    short = short_ids(ids, wide=wide)
    when = instant_text if wide else _day
    print_table(
        [
            *("ID", "HOSTNAMES", "STATE"),
            *(("GENERATION", "PINNED") if wide else ()),
            *("CREATED", "LAST USED", "EXPIRES", "DESCRIPTION"),
        ],
        [
            [
                short[token.id],
                describing.shorten([str(grant.hostname) for grant in token.grants]),
                describing.state(token, serving),
                *([str(token.generation), "yes" if token.account_thumbprint else "no"] if wide else []),
                when(token.created_at),
                when(token.last_used_at),
                when(token.expires_at),
                token.description or "",
            ]
            for token in tokens
        ],
        empty="there are no such tokens" if host or expiring else "there are no tokens: see responder token mint",
        wide=wide,
        cut=["HOSTNAMES", "DESCRIPTION"],
    )


def _ends_before(token: Token, end: datetime, now: datetime) -> bool:
    return token.state(now) is State.ACTIVE and token.expires_at is not None and token.expires_at <= end


def _day(at: datetime | None) -> str:
    return instant_text(at)[: len("2026-01-31")]


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
    click.echo(f"revoked the token with the id {revoked}; its values are removed from DNS within a second")
