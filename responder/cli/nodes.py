"""`responder node`: the services that share one database, and the serials that each of them serves."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import click

from responder.cli.context import OUTPUT, Context, print_json
from responder.cli.tables import WIDE, print_table
from responder.nodes.membership import CLOCK_WARNING
from responder.store import Node, Store


@click.group()
def node() -> None:
    """Show the nodes: the services that share one database."""


@node.command("list")
@WIDE
@OUTPUT
@click.pass_obj
def list_nodes(context: Context, wide: bool, output: str) -> None:  # noqa: FBT001  # an option's name
    """
    List the nodes.

    The list has the serial and the lag of each zone, when each node was last seen, and how the nodes differ.
    """

    async def read(store: Store) -> tuple[list[Node], dict[str, int]]:
        return await store.nodes(), {str(apex): serial for apex, serial in (await store.serials()).items()}

    nodes, serials = context.with_store(read)
    described = [_describe(each, serials, nodes) for each in nodes]
    if output == "json":
        print_json(described)
        return
    print_table(
        ["NODE", "STATE", "SEEN", "VERSION", "ZONE", "SERIAL", "LAG", "DIFFERENCES"],
        [row for each in described for row in _rows(each)],
        empty="there are no nodes: no service has used this database yet",
        wide=wide,
        cut=["NODE", "VERSION", "ZONE", "DIFFERENCES"],
    )


@node.command()
@click.argument("name")
@click.pass_obj
def forget(context: Context, name: str) -> None:
    """Remove a node that has stopped for good."""
    context.with_store(lambda store: store.forget_node(name))
    click.echo(f"removed the node {name}")


def _describe(node: Node, serials: dict[str, int], nodes: Iterable[Node]) -> dict[str, object]:
    zones = [
        {
            "zone": str(apex),
            "serial": zone.serial or None,  # a node that has just started serves none yet
            "lag": max(0, serials.get(str(apex), 0) - zone.serial) if zone.serial else None,
        }
        for apex, zone in node.zones.items()
    ]
    return {
        "name": node.name,
        "live": node.is_live,
        "address": node.address,
        "version": node.version,
        "started": round(node.started, 1),
        "seen": round(node.seen, 1),
        "lease_left": round(node.lease_left, 1),
        "clock_ahead": round(node.clock_ahead, 3),
        "zones": zones,
        "differences": list(_differences(node, nodes)),
    }


def _differences(node: Node, nodes: Iterable[Node]) -> Iterable[str]:
    """How the node differs from the other live nodes."""
    if not node.is_live:
        return
    if abs(node.clock_ahead) > CLOCK_WARNING:
        yield f"clock {node.clock_ahead:+.0f} s"
    others = [other for other in nodes if other.is_live and other.name != node.name]
    if any(other.version != node.version for other in others):
        yield "version"
    for apex, zone in node.zones.items():
        if any(apex in other.zones and other.zones[apex].static != zone.static for other in others):
            yield f"settings of {apex}"
        if any(apex not in other.zones for other in others):
            yield f"only some serve {apex}"


def _rows(described: dict[str, object]) -> Iterable[list[str]]:
    zones = described["zones"]
    assert isinstance(zones, list)  # noqa: S101  # for the types
    state = "live" if described["live"] else "gone"
    head = [str(described["name"]), state, _age(described["seen"]), str(described["version"])]
    differences = described["differences"]
    tail = ", ".join(differences) if isinstance(differences, list) else ""
    for zone in zones or [{"zone": "", "serial": "", "lag": ""}]:
        serial, lag = ("-" if zone[key] is None else str(zone[key]) for key in ("serial", "lag"))
        yield [*head, str(zone["zone"]), serial, lag, tail]
        head, tail = ["", "", "", ""], ""


def _age(seconds: object) -> str:
    return f"{timedelta(seconds=round(float(str(seconds))))} ago"
