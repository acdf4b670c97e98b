"""`responder check`: the doctor, from the command line to its findings on the screen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from responder.cli.context import OUTPUT, Access, Context, ended_by_signals, print_json
from responder.cli.parameters import Text
from responder.cli.running import readiness
from responder.config import Endpoint, Settings, ZoneSettings
from responder.errors import Invalid, InvalidRequest
from responder.names import Name
from responder.tokens.hostname import parse_hostname
from responder.tokens.token import Grant, State, Token

if TYPE_CHECKING:
    from responder.doctor import Case, Patient
    from responder.store import Store


class _Resolver(click.ParamType[tuple[str, int | None]]):
    name = "address[:port]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int | None]:
        try:
            return str(ip_address(value)), None
        except ValueError:
            pass
        try:
            endpoint = Endpoint.parse(value)
        except Invalid as fault:
            self.fail(str(fault), param, ctx)
        return endpoint.host, endpoint.port


def _identity(text: str) -> str:
    """Raises `InvalidName`: what is no name is refused, as everywhere."""
    return str(Name.parse(text))


# An absolute URI as a parameter of a CAA record can hold it: no blank, no semicolon (RFC 8659, section 4.2).
_URI = Text(
    "uri",
    r"[A-Za-z][A-Za-z0-9+.-]*:[!-:<-~]+",
    "the URL of an ACME account, such as https://…/acme/acct/1",
)


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--resolver", type=_Resolver(), help="Resolver to ask; by default the one that this machine uses.")
@click.option("--port", type=click.IntRange(1, 65_535), default=53, help="Port of every server, in laboratories. [53]")
@click.option("--write", is_flag=True, help="Present a value for each HOST, see it arrive, and clean it up.")
@click.option(
    "--ca",
    type=_identity,
    metavar="DOMAIN",
    multiple=True,
    default=["letsencrypt.org"],
    help="The CA, as CAA records name it; one that goes by several names: repeat. [letsencrypt.org]",
)
@click.option("--account-uri", type=_URI, help="URL of your ACME account, for the CAA record that binds to it.")
@OUTPUT
@click.pass_obj
def check(
    context: Context,
    hosts: tuple[str, ...],
    resolver: tuple[str, int | None] | None,
    port: int,
    write: bool,  # noqa: FBT001  # an option's name
    ca: tuple[str, ...],
    account_uri: str | None,
    output: str,
) -> None:
    """
    Find what is wrong with a delegation or hostname, and what mends it.

    Without HOST, only the zones and the API are looked at. Exit status 1 if anything has to be mended.
    """
    # Imports more than any other command, and most commands are not this one.
    from responder.doctor import Api, Case, Policy, Service, system_resolvers

    settings = context.settings
    address, resolver_port = resolver if resolver is not None else (None, 53)
    resolvers = [address] if address is not None else system_resolvers()

    async def work(store: Store | None) -> bool:
        patients = await _patients(settings, store, hosts) if store is not None else []
        case = Case(
            zones=_zones(settings, patients),
            serving=settings.serving,
            serials={} if store is None else await store.serials(),
            patients=patients,
            policy=Policy(ca, account_uri),
            resolvers=resolvers,
            resolver_port=resolver_port or port,
            port=port,
            write=store if write else None,
            api=Api.of(settings.api),
            service=Service(
                await asyncio.to_thread(readiness, settings.admin.listen),
                [] if store is None else await store.warnings(),
            ),
        )
        with ended_by_signals():
            return await _examine(case, output)

    async def run() -> bool:
        if not hosts and not await context.has_database():
            return await work(None)  # the delegation can be looked at before the service first runs
        async with context.store(Access.CHANGE if write else Access.READ) as store:
            return await work(store)

    if not asyncio.run(run()):
        raise SystemExit(1)


async def _examine(case: Case, output: str) -> bool:
    """Examine and print; whether nothing has to be mended."""
    from responder.cli.findings import Screen, as_json, count
    from responder.doctor import Mark, examine

    screen = Screen()
    with screen.live():
        sections = await examine(
            case, waiting=screen.waiting, found=screen.show if output == "text" else lambda _: None
        )
    if output == "json":
        print_json(as_json(sections))
    else:
        screen.show_mends()
        screen.conclude(sections)
    return not count(sections, Mark.CROSS)


async def _patients(settings: Settings, store: Store, hosts: Sequence[str]) -> list[Patient]:
    """What is to be looked at. Raises `InvalidRequest` with a line for each host that cannot be."""
    from responder.doctor import Patient

    wildcards: dict[Name, bool] = {}
    patients: list[Patient] = []
    faults: list[str] = []
    for host in hosts:
        try:
            hostname = parse_hostname(host)
        except Invalid as fault:
            faults.append(str(fault))
        else:
            wildcards[hostname] = wildcards.get(hostname, False) or host.startswith("*.")
    for hostname, wildcard in wildcards.items():
        granted = await _granted(store, hostname)
        if granted is None:
            faults.append(f"no valid token is granted {hostname}: mint one with: responder token mint {hostname}")
        elif (fault_text := settings.serving.fault(granted[1].challenge_name, granted[1].apex)) is not None:
            faults.append(f"{hostname}: {fault_text}")
        else:
            token, grant = granted
            patients.append(Patient(grant=grant, token_id=token.id, wildcard=wildcard))
    if faults:
        raise InvalidRequest(faults)
    return patients


async def _granted(store: Store, hostname: Name) -> tuple[Token, Grant] | None:
    """The newest valid token that is granted *hostname*, and its grant."""
    now = datetime.now(UTC)
    for token in reversed(await store.tokens_for(hostname)):
        if token.state(now) is State.ACTIVE:
            return token, next(grant for grant in token.grants if grant.hostname == hostname)
    return None


def _zones(settings: Settings, patients: Sequence[Patient]) -> list[ZoneSettings]:
    """The zones of these hostnames; all of them, if it is about no hostname in particular."""
    return [
        zone for zone in settings.zones if not patients or any(patient.grant.apex == zone.name for patient in patients)
    ]
