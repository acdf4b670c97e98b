"""`responder token allow` and `deny`, and the challenge name of each hostname in a grant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import click

from responder.cli.context import OUTPUT, Access, Context, print_json
from responder.cli.parameters import Hostname, TokenId
from responder.cli.tokens import describing
from responder.config import Settings
from responder.dns.rrset import RRset, RRType
from responder.errors import Invalid, InvalidName, InvalidRequest
from responder.names import Name
from responder.store import Store
from responder.tokens.hostname import challenge_name, delegated_name, home_zone, parse_hostname, zone_of
from responder.tokens.token import Grant, State, Token

ALIAS = click.option(
    "--alias",
    metavar="NAME",
    help="Challenge name in our zone, instead of one that is derived from the hostname. Several hostnames share it.",
)


@click.command()
@click.argument("id", type=TokenId())
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@ALIAS
@OUTPUT
@click.pass_obj
def allow(context: Context, id: str, hosts: tuple[str, ...], alias: str | None, output: str) -> None:  # noqa: A002
    """Allow more hostnames to a token. Prints the CNAMEs that they need."""
    grants = grants_for(context.settings, hosts, alias)

    async def change(store: Store) -> Token:
        now = datetime.now(UTC)
        token = await store.token(await store.token_id(id))
        if token.state(now) is State.EXPIRED:
            raise Invalid("the token has expired, and cannot get hostnames: mint another one")
        notes = await others(store, grants, but=token.id)
        allowed = await store.allow(token.id, grants, at=now)
        report(notes)
        return allowed

    _print(context, context.with_store(change, Access.CHANGE), output)


@click.command()
@click.argument("id", type=TokenId())
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...", type=Hostname())
@OUTPUT
@click.pass_obj
def deny(context: Context, id: str, hosts: tuple[Name, ...], output: str) -> None:  # noqa: A002
    """Remove hostnames from a token, and the values that it has set for them. The token may have expired."""

    async def change(store: Store) -> Token:
        return await store.deny(await store.token_id(id), hosts, at=datetime.now(UTC))

    _print(context, context.with_store(change, Access.CHANGE), output)


def grants_for(settings: Settings, hosts: Sequence[str], alias: str | None) -> tuple[Grant, ...]:
    """A grant for each of *hosts*. Raises `InvalidRequest` with every fault."""
    faults: list[str] = []
    grants: dict[Name, Grant] = {}
    for host in hosts:
        try:
            hostname = parse_hostname(host)
            grants[hostname] = derive(settings, hostname) if alias is None else _alias(settings, alias, hostname)
        except Invalid as fault:
            faults.append(str(fault))
    if faults:
        raise InvalidRequest(dict.fromkeys(faults))
    return tuple(grants.values())


async def others(store: Store, grants: Iterable[Grant], *, but: UUID | None = None) -> list[str]:
    """A note for each hostname of *grants* that active tokens *but* this one cover already."""
    now, notes = datetime.now(UTC), []
    for grant in grants:
        found = [
            str(token.id)
            for token in await store.tokens_for(grant.hostname)
            if token.state(now) is State.ACTIVE and token.id != but
        ]
        if found:
            which = "another active token covers" if len(found) == 1 else "other active tokens cover"
            notes.append(f"{which} {grant.hostname}, too: {describing.shorten(found)}")
    return notes


def report(notes: Iterable[str]) -> None:
    """Print *notes* on stderr."""
    for note in notes:
        click.echo(f"responder: note: {note}", err=True)


def _print(context: Context, token: Token, output: str) -> None:
    serving = context.settings.serving
    if output == "json":
        describing.warn(token, serving)
        print_json(describing.as_json(token, serving))
        return
    if token.state(datetime.now(UTC)) is State.EXPIRED:
        click.echo(f"the token with the id {token.id} has expired; it still covers:")
    else:
        click.echo(f"the token with the id {token.id} now covers (effective within a second):")
    for line in describing.grant_lines(token, serving):
        click.echo(line)
    if not token.grants:
        click.echo("no hostname")


def derive(settings: Settings, hostname: Name) -> Grant:
    """The grant for *hostname* without an alias. Raises `InvalidName`."""
    try:
        apex = home_zone(hostname, [zone.name for zone in settings.zones])
        return Grant(hostname=hostname, challenge_name=challenge_name(hostname, apex), apex=apex)
    except InvalidName as fault:
        raise InvalidName(f"the challenge name of {hostname} is too long: choose one with --alias ({fault})") from None


def _alias(settings: Settings, text: str, hostname: Name) -> Grant:
    """The grant for *hostname* with the challenge name that --alias asks for. Raises `InvalidName`."""
    alias = Name.parse(text)
    if b"*" in alias.labels:
        raise InvalidName(f"--alias {alias}: wildcards are not supported: write the whole name")
    apexes = [zone.name for zone in settings.zones]
    apex = zone_of(alias, apexes)
    if apex is None:
        meant = f": write the whole name, such as {alias}.{apexes[0]}" if len(alias.labels) == 1 else ""
        raise InvalidName(f"--alias {alias} is in no zone served here ({', '.join(map(str, apexes))}){meant}")
    if alias != (asked := delegated_name(hostname)) and zone_of(asked, apexes) is not None:
        # Its CNAME would have to be in our zone, at a name that is reserved for values.
        raise InvalidName(f"--alias {alias}: {asked} is in our zone, so it needs no CNAME: leave out --alias")
    if any(_hinders(rrset, alias, apex) for static in settings.statics for rrset in static.rrsets):
        raise InvalidName(f"--alias {alias} has records from the configuration: choose a name without records")
    return Grant(hostname=hostname, challenge_name=alias, apex=apex)


def _hinders(rrset: RRset, alias: Name, apex: Name) -> bool:
    """Whether the static *rrset* prevents values at *alias*. An apex always has records, such as its SOA."""
    return rrset.owner == alias and (alias != apex or rrset.type == RRType.TXT)
