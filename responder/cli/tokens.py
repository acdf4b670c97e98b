"""`responder token`: mint tokens, look at them, revoke them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import click

from responder import access
from responder.access import Grant, Network, Token
from responder.cli.context import OUTPUT, Context, instant_text, print_json, print_table
from responder.config import Settings, parse_duration
from responder.errors import Invalid, InvalidName, InvalidRequest
from responder.names import Name
from responder.store import NewToken

MAX_EXPIRY = timedelta(days=36_500)
"""A hundred years: whoever asks for more means a token that does not expire."""


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            seconds = parse_duration(str(value))
        except Invalid as fault:
            self.fail(str(fault), param, ctx)
        if not 0 < seconds <= MAX_EXPIRY.total_seconds():
            self.fail(f"{value!r} is not between 1s and {MAX_EXPIRY.days}d", param, ctx)
        return timedelta(seconds=seconds)


class _Network(click.ParamType[Network]):
    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        try:
            return ip_network(value)
        except ValueError as fault:
            self.fail(f"{value!r} is not a network such as 192.0.2.0/24 or 2001:db8::/32: {fault}", param, ctx)


class _Note(click.ParamType[str]):
    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        # What is printed on terminals must not be able to command them.
        if not str(value).isprintable():
            self.fail(f"{value!r} is not one line of printable text", param, ctx)
        return str(value)


@click.group()
def token() -> None:
    """Mint and manage tokens."""


@token.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("--description", type=_Note(), help="A note for people: which cluster, which team.")
@click.option("--expires-in", type=_Duration(), help="Let the token expire: 90d, 24h, 30m. By default it does not.")
@click.option("--allow-from", type=_Network(), multiple=True, help="Only take it from this network. Repeatable.")
@click.option("--alias", help="Challenge name to use instead of the one derived from the (one) hostname.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), help="Same as --output.")
@OUTPUT
@click.pass_obj
def mint(
    context: Context,
    hosts: tuple[str, ...],
    description: str | None,
    expires_in: timedelta | None,
    allow_from: tuple[Network, ...],
    alias: str | None,
    format_: str | None,
    output: str,
) -> None:
    """Mint one token for these hostnames. It is shown once: the database keeps only its digest."""
    grants = _grants(context.settings, hosts, alias)
    secret = access.mint_secret()
    now = datetime.now(UTC)
    new = NewToken(
        digest=access.digest(secret),
        description=description,
        grants=grants,
        created_at=now,
        expires_at=now + expires_in if expires_in else None,
        allow_from=allow_from,
    )
    minted = context.with_store(lambda store: store.mint(new))
    if (format_ or output) == "json":
        described = access.describe(minted)
        print_json({"id": described.pop("id"), "token": secret} | described)
    else:
        _print_minted(minted, secret)


@token.command("list")
@OUTPUT
@click.pass_obj
def list_tokens(context: Context, output: str) -> None:
    """List all tokens, oldest first, without their secrets."""
    tokens = context.with_store(lambda store: store.tokens())
    if output == "json":
        print_json([_describe(token) for token in tokens])
        return
    print_table(
        ["ID", "HOSTNAMES", "STATE", "CREATED", "LAST USED", "EXPIRES", "DESCRIPTION"],
        (
            [
                str(token.id),
                _shorten([str(grant.hostname) for grant in token.grants]),
                _state(token),
                instant_text(token.created_at),
                instant_text(token.last_used_at),
                instant_text(token.expires_at),
                token.description or "",
            ]
            for token in tokens
        ),
    )


@token.command()
@click.argument("id", type=click.UUID)
@OUTPUT
@click.pass_obj
def show(context: Context, id: UUID, output: str) -> None:  # noqa: A002  # becomes the ID of the usage text
    """Show one token: what it may do, and the CNAMEs it relies on."""
    shown = context.with_store(lambda store: store.token(id))
    if output == "json":
        print_json(_describe(shown))
        return
    click.echo(f"token        {shown.id}")
    click.echo(f"state        {_state(shown)}")
    click.echo(f"description  {shown.description or ''}".rstrip())
    click.echo(f"created      {instant_text(shown.created_at)}")
    click.echo(f"last used    {instant_text(shown.last_used_at)}")
    click.echo(f"expires      {instant_text(shown.expires_at)}")
    click.echo(f"allowed from {', '.join(map(str, shown.allow_from)) or 'anywhere'}")
    _print_grants(shown)


@token.command()
@click.argument("id", type=click.UUID)
@click.pass_obj
def revoke(context: Context, id: UUID) -> None:  # noqa: A002  # becomes the ID of the usage text
    """Revoke a token, and remove the values that it has set."""
    context.with_store(lambda store: store.revoke(id, at=datetime.now(UTC)))
    click.echo(f"revoked {id}; a running service refuses it within a second")


def _grants(settings: Settings, hosts: Sequence[str], alias: str | None) -> tuple[tuple[Grant, Name], ...]:
    """A grant for each of *hosts*, with the apex of its zone; every fault is reported together."""
    faults: list[str] = []
    grants: dict[Name, tuple[Grant, Name]] = {}
    for host in hosts:
        try:
            hostname = access.parse_hostname(host)
            challenge_name, apex = _derive(settings, hostname) if alias is None else _alias(settings, alias)
        except Invalid as fault:
            faults.append(str(fault))
        else:
            grants[hostname] = (Grant(hostname=hostname, challenge_name=challenge_name), apex)
    if alias is not None and len(grants) > 1:
        faults.append("--alias is one challenge name, so it goes with one hostname: mint a token for each")
    if faults:
        raise InvalidRequest(dict.fromkeys(faults))
    return tuple(grants.values())


def _derive(settings: Settings, hostname: Name) -> tuple[Name, Name]:
    """The challenge name of *hostname*, and its zone's apex. Raises `InvalidName`."""
    try:
        apex = access.home_zone(hostname, [zone.name for zone in settings.zones])
        return access.challenge_name(hostname, apex), apex
    except InvalidName as fault:
        raise InvalidName(f"the challenge name of {hostname} is too long: choose one with --alias ({fault})") from None


def _alias(settings: Settings, text: str) -> tuple[Name, Name]:
    """The challenge name that --alias asks for, and its zone's apex. Raises `InvalidName`."""
    alias = Name.parse(text)
    if b"*" in alias.labels:
        raise InvalidName(f"--alias {alias}: wildcards are not supported: write out the name")
    zone = next((zone for zone in settings.zones if alias.is_within(zone.name)), None)
    if zone is None:
        apexes = ", ".join(str(zone.name) for zone in settings.zones)
        raise InvalidName(f"--alias {alias} is in no zone served here ({apexes})")
    if any(rrset.owner == alias for rrset in zone.static.rrsets):
        raise InvalidName(f"--alias {alias} has records from the configuration: choose a name without any")
    return alias, zone.name


def _print_minted(token: Token, secret: str) -> None:
    click.echo(f"token        {secret}")
    click.echo(f"id           {token.id}")
    click.echo(f"expires      {instant_text(token.expires_at)}")
    click.echo("\nKeep the token now: it is not shown again.\n")
    _print_grants(token)
    click.echo("\nBind issuance to your ACME account, so that no other account gets a certificate (RFC 8657):")
    for grant in token.grants:
        click.echo(
            f"  {grant.hostname.fqdn} 300 IN CAA 0 issue "
            '"letsencrypt.org; validationmethods=dns-01; accounturi=<URL of your ACME account>"'
        )


def _print_grants(token: Token) -> None:
    for grant in token.grants:
        click.echo(f"{grant.hostname}: {grant.cname or f'no CNAME needed, {grant.challenge_name} is in our zone'}")


def _describe(token: Token) -> dict[str, Any]:
    instants = {
        "created_at": token.created_at.isoformat(),
        "last_used_at": token.last_used_at.isoformat() if token.last_used_at else None,
        "revoked_at": token.revoked_at.isoformat() if token.revoked_at else None,
    }
    return access.describe(token) | instants | {"state": _state(token)}


def _state(token: Token) -> str:
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
        return "expired"
    return "active"


def _shorten(texts: Sequence[str]) -> str:
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
