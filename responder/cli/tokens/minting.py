"""`responder token mint` and `rotate`, which make secrets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from responder.cli.context import Access, Context, instant_text
from responder.cli.parameters import FILE, THUMBPRINT, Duration, NetworkArgument, Note, TokenId
from responder.cli.tokens.delivery import Delivery, delivered
from responder.cli.tokens.grants import ALIAS, grants_for, others, report
from responder.errors import Invalid
from responder.store import NewToken, Store
from responder.tokens.network import Network
from responder.tokens.secret import digest, mint_secret
from responder.tokens.token import State, Token


@click.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("--description", type=Note(), help="A note for administrators, such as the team that uses it.")
@click.option("--expires-in", type=Duration(), help="When the token expires, such as 90d, 24h or 30m. Default: never.")
@click.option(
    "--allow-from",
    type=NetworkArgument(),
    multiple=True,
    help="Accept the token only from this network. Repeatable. Default: from anywhere.",
)
@click.option(
    "--account-thumbprint", type=THUMBPRINT, help="Pin the token to the ACME account whose key has this thumbprint."
)
@click.option("--account-key", type=FILE, help="Likewise, but read the account's key from this file. Use - for stdin.")
@ALIAS
@delivered
@click.pass_obj
def mint(
    context: Context,
    hosts: tuple[str, ...],
    description: str | None,
    expires_in: timedelta | None,
    allow_from: tuple[Network, ...],
    account_thumbprint: str | None,
    account_key: Path | None,
    alias: str | None,
    delivery: Delivery,
) -> None:
    """Mint one token for these hostnames. It is shown only once: the database stores only its digest."""
    pinned_to = _thumbprint(account_thumbprint, account_key)
    grants = grants_for(context.settings, hosts, alias)
    secret = mint_secret()
    with delivery.ready(context.settings, grants, pinned=pinned_to is not None) as hand_over:
        now = datetime.now(UTC)
        new = NewToken(
            digest=digest(secret),
            description=description,
            grants=grants,
            created_at=now,
            expires_at=now + expires_in if expires_in else None,
            allow_from=allow_from,
            account_thumbprint=pinned_to,
        )

        async def write(store: Store) -> Token:
            notes = await others(store, grants)
            token = await store.mint(new)
            report(notes)
            return token

        hand_over(context.with_store(write, Access.CREATE), secret)


@click.command()
@click.argument("id", type=TokenId())
@click.option(
    "--grace",
    type=Duration(zero=True),
    default="24h",
    show_default=True,
    help="How long the old secret remains valid; 0 ends it at once.",
)
@delivered
@click.pass_obj
def rotate(context: Context, id: str, grace: timedelta, delivery: Delivery) -> None:  # noqa: A002
    """
    Give a token a new secret, which is shown only once.

    The token keeps its id, its hostnames and its limits. Its TSIG key changes, too.
    """
    secret = mint_secret()

    async def change(store: Store) -> None:
        token = await store.token(await store.token_id(id))
        if token.state(datetime.now(UTC)) is State.EXPIRED:
            raise Invalid("the token has expired and cannot be rotated: mint another one")
        pinned = token.account_thumbprint is not None
        with delivery.ready(context.settings, token.grants, pinned=pinned) as hand_over:
            now = datetime.now(UTC)
            rotated = await store.rotate(token.id, digest(secret), at=now, grace=grace)
            ends = f"remains valid until {instant_text(now + grace)} at most" if grace else "is no longer valid"
            hand_over(rotated, secret, note=f"The old secret {ends}.")

    context.with_store(change, Access.CHANGE)


def _thumbprint(thumbprint: str | None, key: Path | None) -> str | None:
    """The thumbprint of the account to pin the token to. Raises `Invalid` for a file without a key."""
    if thumbprint is not None and key is not None:
        raise click.UsageError("--account-thumbprint and --account-key mean the same: use one of them")
    if key is None:
        return thumbprint
    from responder.certificate import accountkey

    return accountkey.thumbprint(key)
