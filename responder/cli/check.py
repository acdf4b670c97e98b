"""`responder check`: runs the doctor, and prints its findings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from responder.cli.context import OUTPUT, Access, Context, ended_by_signals, print_json
from responder.cli.parameters import PORT, Text
from responder.cli.running import readiness
from responder.cli.tokens.temporary import temporary_token
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
    """The name of a CA. Raises `InvalidName`."""
    return str(Name.parse(text))


# An absolute URI that fits a parameter of a CAA record: without spaces and semicolons (RFC 8659, section 4.2).
_URI = Text(
    "uri",
    r"[A-Za-z][A-Za-z0-9+.-]*:[!-:<-~]+",
    "the URL of an ACME account, such as https://…/acme/acct/1",
)


PROBE_LIFETIME = timedelta(minutes=10)
"""Lifetime of the token for test values, in case this program cannot revoke it."""


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--resolver", type=_Resolver(), help="Resolver to query. Default: the resolver of this machine.")
@click.option(
    "--port", type=PORT, default=53, show_default=True, help="DNS port of all servers, 1 to 65535 (for test setups)."
)
@click.option(
    "--write", is_flag=True, help="Present a test value for each HOST, check that it is served, and remove it."
)
@click.option(
    "--ca",
    type=_identity,
    metavar="DOMAIN",
    multiple=True,
    default=["letsencrypt.org"],
    show_default=True,
    help="Domain that identifies the CA in CAA records. Repeat the option for a CA with several such domains.",
)
@click.option("--account-uri", type=_URI, help="URL of your ACME account, for CAA records that name it.")
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
    Find what is wrong with a delegation or a hostname, and how to fix it.

    Without HOST, the command checks only the zones, the API and the service. The exit status is 1 if anything has to be
    fixed.
    """
    # These imports take long, and no other command needs them.
    from responder.doctor import Api, Case, Policy, ServiceReport, system_resolvers

    settings = context.settings
    address, resolver_port = resolver if resolver is not None else (None, 53)
    resolvers = [address] if address is not None else system_resolvers()

    async def work(store: Store | None, patients: Sequence[Patient] = ()) -> bool:
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
            service=ServiceReport(
                await asyncio.to_thread(readiness, settings.admin.listen),
                [] if store is None else await store.warnings(),
            ),
        )
        return await _examine(case, output)

    async def run() -> bool:
        if not hosts and not await context.has_database():
            return await work(None)  # the delegation can be checked before the service first runs
        async with context.store(Access.CHANGE if write else Access.READ) as store:
            patients = await _patients(settings, store, hosts)
            if not write or not patients:
                return await work(store, patients)
            grants = [patient.grant for patient in patients]
            async with temporary_token(store, grants, description="responder check", lifetime=PROBE_LIFETIME) as own:
                return await work(store, [replace(patient, token_id=own[0]) for patient in patients])

    async def run_until_signal() -> bool:
        with ended_by_signals():
            return await run()

    if not asyncio.run(run_until_signal()):
        raise SystemExit(1)


async def _examine(case: Case, output: str) -> bool:
    """Examine, and print the findings. Returns whether nothing has to be fixed."""
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
        screen.show_fixes()
        screen.conclude(sections)
    return not count(sections, Mark.CROSS)


async def _patients(settings: Settings, store: Store, hosts: Sequence[str]) -> list[Patient]:
    """The hostnames to check. Raises `InvalidRequest` with a line for each that cannot be checked."""
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
            faults.append(f"no valid token covers {hostname}: mint one with responder token mint {hostname}")
        elif (fault_text := settings.serving.fault(granted[1].challenge_name, granted[1].apex)) is not None:
            faults.append(f"{hostname}: {fault_text}")
        else:
            token, grant = granted
            patients.append(Patient(grant=grant, token_id=token.id, wildcard=wildcard))
    if faults:
        raise InvalidRequest(faults)
    return patients


async def _granted(store: Store, hostname: Name) -> tuple[Token, Grant] | None:
    """The newest valid token with a grant for *hostname*, and that grant."""
    now = datetime.now(UTC)
    for token in reversed(await store.tokens_for(hostname)):
        if token.state(now) is State.ACTIVE:
            return token, next(grant for grant in token.grants if grant.hostname == hostname)
    return None


def _zones(settings: Settings, patients: Sequence[Patient]) -> list[ZoneSettings]:
    """The zones of these hostnames; all zones, if there are no hostnames."""
    return [
        zone for zone in settings.zones if not patients or any(patient.grant.apex == zone.name for patient in patients)
    ]
