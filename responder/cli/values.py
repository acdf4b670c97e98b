"""`responder value`: lists the challenge values, and removes them by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import click

from responder.cli.context import OUTPUT, Access, Context, print_json
from responder.cli.parameters import Hostname, TokenId
from responder.cli.tables import WIDE, print_table, short_ids, span_text
from responder.errors import Invalid, NotFound
from responder.names import Name
from responder.store import LiveValue, Store
from responder.tokens.hostname import delegated_name


@click.group()
def value() -> None:
    """List and remove challenge values."""


@value.command("list")
@click.option("--host", type=Hostname(), help="Show only the values of this hostname.")
@click.option("--token", type=TokenId(), help="Show only the values that this token has presented.")
@WIDE
@OUTPUT
@click.pass_obj
def list_values(
    context: Context,
    host: Name | None,
    token: str | None,
    wide: bool,  # noqa: FBT001  # an option's name
    output: str,
) -> None:
    """List the stored values: hostname, age, expiry, and whether they are served."""
    serving = context.settings.serving

    async def read(store: Store) -> tuple[list[LiveValue], list[UUID]]:
        wanted = None if token is None else await store.token_id(token)
        found = [live for live in await store.values() if wanted in (None, live.token_id)]
        return [live for live in found if host is None or host in live.hostnames], await store.token_ids()

    values, ids = context.with_store(read)
    if output == "json":
        print_json([_describe(live) | {"served": live.is_served(serving)} for live in values])
        return
    short, now = short_ids(ids, wide=wide), datetime.now(UTC)
    print_table(
        ["HOSTNAME", "VALUE", "SERVED", "AGE", "EXPIRES IN", "TOKEN ID"],
        [
            [
                ", ".join(map(str, live.hostnames)),
                live.value,
                "yes" if live.is_served(serving) else "no",
                span_text(now - live.presented_at),
                span_text(live.expires_at - now),
                short[live.token_id],
            ]
            for live in values
        ],
        empty="there are no such values" if host or token else "there are no values",
        wide=wide,
        cut=["HOSTNAME", "VALUE"],
    )


# A digest may begin with a dash, so nothing with a single dash is an option here.
class _Clear(click.Command):
    """Accepts a VALUE that begins with a dash, even with -h; only -h alone asks for help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--help" if word == "-h" else word for word in args])


@value.command(cls=_Clear, context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("name")
@click.argument("value", required=False)
@OUTPUT
@click.pass_obj
def clear(context: Context, name: str, value: str | None, output: str) -> None:
    """Remove VALUE, or all values, of a hostname or a challenge name."""

    async def clear(store: Store) -> list[str]:
        return await store.clear(await _challenge_name(store, name), value, now=datetime.now(UTC))

    cleared = context.with_store(clear, Access.CHANGE)
    if output == "json":
        print_json({"cleared": cleared})
        return
    for text in cleared:
        click.echo(f"cleared {text}")


async def _challenge_name(store: Store, text: str) -> Name:
    """
    The challenge name that *text* means: *text* may be that name, the name of its CNAME, or its hostname.

    Raises `NotFound`, or `Invalid` if it means several, because one token's challenge name is another's hostname.
    """
    name = Name.parse(text.removeprefix("*."))
    meant = {
        live.challenge_name: live.hostnames
        for live in await store.values()
        if name == live.challenge_name or any(name in (host, delegated_name(host)) for host in live.hostnames)
    }
    if not meant:
        raise NotFound(f"there is no value for {name}: see responder value list")
    if len(meant) > 1:
        each = " and ".join(f"{challenge_name} of {hosts[0]}" for challenge_name, hosts in sorted(meant.items()))
        raise Invalid(f"{name} means several challenge names, {each}: write a name that only one of them has")
    return next(iter(meant))


def _describe(live: LiveValue) -> dict[str, object]:
    return {
        "hostname": str(live.hostnames[0]),
        "hostnames": [str(hostname) for hostname in live.hostnames],
        "challenge_name": str(live.challenge_name),
        "value": live.value,
        "token_id": str(live.token_id),
        "presented_at": live.presented_at.isoformat(),
        "expires_at": live.expires_at.isoformat(),
    }
