"""`responder zone`: prints the zones, and the records that delegate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from responder.cli.context import OUTPUT, Context, print_json
from responder.config import Settings
from responder.dns.rrset import RRset, RRType
from responder.dns.zone import Zones
from responder.dns.zonetext import print_rrset
from responder.names import Name

if TYPE_CHECKING:
    from responder.store import Store


@click.group()
def zone() -> None:
    """Show the zones and their delegations."""


@zone.command()
@OUTPUT
@click.pass_obj
def show(context: Context, output: str) -> None:
    """Print the zones as they are served, in the format of zone files."""
    zones = context.with_store(lambda store: _load(context.settings, store))
    for zone in zones:
        if not zone.serial:
            click.echo(f"responder: warning: {zone.apex}: no service has started with this zone yet", err=True)
    if output == "json":
        print_json(
            [{"zone": str(zone.apex), "serial": zone.serial, "records": _lines(tuple(zone.rrsets()))} for zone in zones]
        )
        return
    for zone in zones:
        for line in _lines(tuple(zone.rrsets())):
            click.echo(line)


@zone.command()
@OUTPUT
@click.pass_obj
def delegation(context: Context, output: str) -> None:
    """Print the NS and glue records that each parent zone needs."""
    delegations = [(zone.name, _lines(_delegation(zone.static.rrsets, zone.name))) for zone in context.settings.zones]
    if output == "json":
        print_json([{"zone": str(apex), "parent": str(apex.parent), "records": lines} for apex, lines in delegations])
        return
    for apex, lines in delegations:
        click.echo(f"; add these records to the parent zone of {apex}, for example {apex.parent}")
        for line in lines:
            click.echo(line)


async def _load(settings: Settings, store: Store) -> Zones:
    zones = Zones(settings.statics)
    async for change in store.snapshot():
        zones.apply(change)
    return zones


def _delegation(rrsets: Sequence[RRset], apex: Name) -> Sequence[RRset]:
    """The NS records of a zone, and the addresses of the nameservers inside it."""
    nameservers = [rrset for rrset in rrsets if rrset.type == RRType.NS and rrset.owner == apex]
    targets = {rdata for rrset in nameservers for rdata in rrset.rdatas}
    glue = [r for r in rrsets if r.type in (RRType.A, RRType.AAAA) and r.owner.wire in targets]
    return *nameservers, *glue


def _lines(rrsets: Sequence[RRset]) -> list[str]:
    return [line for rrset in rrsets for line in print_rrset(rrset).splitlines()]
