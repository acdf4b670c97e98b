"""`responder token allow` and `deny`; and which challenge name each hostname gets that a token is to be granted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from responder.cli.context import OUTPUT, Context, print_json
from responder.cli.parameters import Hostname, TokenId
from responder.cli.tokens import describing
from responder.config import Settings
from responder.errors import Invalid, InvalidName, InvalidRequest
from responder.names import Name
from responder.store import Store
from responder.tokens.hostname import challenge_name, home_zone, parse_hostname, zone_of
from responder.tokens.token import Grant, State, Token

ALIAS = click.option(
    "--alias", help="Challenge name in our zone to use instead of the one derived from the (one) hostname."
)


@click.command()
@click.argument("id", type=TokenId())
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@ALIAS
@OUTPUT
@click.pass_obj
def allow(context: Context, id: str, hosts: tuple[str, ...], alias: str | None, output: str) -> None:  # noqa: A002
    """Let a token set values for more hostnames. Prints the CNAMEs that it then relies on."""
    grants = grants_for(context.settings, hosts, alias)

    async def change(store: Store) -> Token:
        now = datetime.now(UTC)
        token = await store.token(await store.token_id(id))
        if token.state(now) is State.EXPIRED:
            raise Invalid("that token has expired, which another hostname would not change: mint another one")
        await check_owned(context.settings, store, grants)
        return await store.allow(token.id, grants, at=now)

    _print(context, context.with_store(change), output)


@click.command()
@click.argument("id", type=TokenId())
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...", type=Hostname())
@OUTPUT
@click.pass_obj
def deny(context: Context, id: str, hosts: tuple[Name, ...], output: str) -> None:  # noqa: A002
    """Take hostnames from a token, also from one that has expired. The values that it has set for them are removed."""

    async def change(store: Store) -> Token:
        return await store.deny(await store.token_id(id), hosts, at=datetime.now(UTC))

    _print(context, context.with_store(change), output)


async def check_owned(settings: Settings, store: Store, wanted: Sequence[tuple[Grant, Name]]) -> None:
    """
    Whether a zone that has gone still has one of these hostnames: then it is no use to go on with the name it had.

    Raises `InvalidRequest` with every fault.
    """
    apexes = [zone.name for zone in settings.zones]
    owned = await store.owned(grant.hostname for grant, _ in wanted)
    if faults := [
        f"{hostname} still publishes at {grant.challenge_name}, which is in no zone that is served here any more: put "
        "its zone back, or take the hostname from the tokens that are granted it: see token list, token deny"
        for hostname, (grant, _) in owned.items()
        if zone_of(grant.challenge_name, apexes) is None
    ]:
        raise InvalidRequest(faults)


def grants_for(settings: Settings, hosts: Sequence[str], alias: str | None) -> tuple[tuple[Grant, Name], ...]:
    """A grant for each of *hosts*, with the apex of its zone. Raises `InvalidRequest` with every fault."""
    faults: list[str] = []
    grants: dict[Name, tuple[Grant, Name]] = {}
    for host in hosts:
        try:
            hostname = parse_hostname(host)
            challenge_name, apex = _derive(settings, hostname) if alias is None else _alias(settings, alias, hostname)
        except Invalid as fault:
            faults.append(str(fault))
        else:
            grants[hostname] = (Grant(hostname=hostname, challenge_name=challenge_name), apex)
    if faults:
        raise InvalidRequest(dict.fromkeys(faults))
    if alias is not None and len(grants) > 1:
        raise click.UsageError("--alias is one challenge name, so it goes with one hostname: mint a token for each")
    return tuple(grants.values())


def _print(context: Context, token: Token, output: str) -> None:
    apexes = [zone.name for zone in context.settings.zones]
    if output == "json":
        describing.warn(token, apexes)
        print_json(describing.as_json(token))
        return
    if token.state(datetime.now(UTC)) is State.EXPIRED:
        click.echo(f"token {token.id} has expired; these are still kept for it:")
    else:
        click.echo(f"token {token.id} now covers, with a running service within a second:")
    for line in describing.grant_lines(token, apexes):
        click.echo(f"  {line}")
    if not token.grants:
        click.echo("  no hostname")


def _derive(settings: Settings, hostname: Name) -> tuple[Name, Name]:
    """The challenge name of *hostname*, and its zone's apex. Raises `InvalidName`."""
    try:
        apex = home_zone(hostname, [zone.name for zone in settings.zones])
        return challenge_name(hostname, apex), apex
    except InvalidName as fault:
        raise InvalidName(f"the challenge name of {hostname} is too long: choose one with --alias ({fault})") from None


def _alias(settings: Settings, text: str, hostname: Name) -> tuple[Name, Name]:
    """The challenge name that --alias asks for *hostname*, and its zone's apex. Raises `InvalidName`."""
    alias = Name.parse(text)
    if b"*" in alias.labels:
        raise InvalidName(f"--alias {alias}: wildcards are not supported: write out the name")
    zone = next((zone for zone in settings.zones if alias.is_within(zone.name)), None)
    if zone is None:
        apexes = ", ".join(str(zone.name) for zone in settings.zones)
        meant = f": write it whole, as in {alias}.{settings.zones[0].name}" if len(alias.labels) == 1 else ""
        raise InvalidName(f"--alias {alias} is in no zone served here ({apexes}){meant}")
    if any(hostname.is_within(zone.name) for zone in settings.zones):
        # The CNAME to it would have to be in our zone, at a name that is kept for values.
        raise InvalidName(
            f"--alias {alias}: {hostname} is in our zone, where CAs ask for its values: leave out --alias"
        )
    if any(rrset.owner == alias for rrset in zone.static.rrsets):
        raise InvalidName(f"--alias {alias} has records from the configuration: choose a name without any")
    return alias, zone.name
