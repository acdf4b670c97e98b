"""
Nodes: the running services on one database, their leases, and the serials that each of them serves.

All times of leases are in the database's clock. A node counts as live until its lease ends, whether it runs or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, case, delete, literal, or_, select

from responder.errors import NodeNameTaken, NotFound
from responder.names import Name
from responder.store.clock import database_clock
from responder.store.schema import nodes
from responder.store.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedZone:
    """A zone as a node serves it: its serial, and a digest of its static part in hexadecimal digits."""

    serial: int
    static: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """
    What a node writes about itself with each renewal of its lease.

    *instance* differs for each start of the service, which distinguishes two services with one name. *clock* is the
    node's own clock, in seconds since 1970.
    """

    name: str
    instance: str
    address: str
    version: str
    schema_min: str
    schema_max: str
    clock: float
    zones: Mapping[Name, ServedZone]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """
    A node as the database knows it.

    *started* and *seen* are ages in seconds, *lease_left* the seconds until its lease ends (negative: it has ended).
    *clock_ahead* is how far its clock was ahead of the database's at its last renewal, in seconds.
    """

    name: str
    instance: str
    address: str
    version: str
    schema_min: str
    schema_max: str
    started: float
    seen: float
    lease_left: float
    clock_ahead: float
    zones: Mapping[Name, ServedZone]

    @property
    def is_live(self) -> bool:
        """Whether it has to be waited for: it may be answering queries."""
        return self.lease_left > 0


def renew(connection: Connection, report: NodeReport, *, lease: timedelta, take_over: bool = False) -> list[Node]:
    """
    Write *report*, make the node's lease last *lease* from now on, and return all nodes by name.

    Raises `NodeNameTaken` if another service has that name and a live lease, unless *take_over*.
    """
    news = {
        "instance": report.instance,
        "address": report.address,
        "version": report.version,
        "schema_min": report.schema_min,
        "schema_max": report.schema_max,
        "seen_at": database_clock(),
        "lease_until": database_clock() + lease.total_seconds(),
        "clock": report.clock,
        "zones": _render_zones(report.zones),
    }
    first = insert_into(connection, nodes).values(name=report.name, started_at=database_clock(), **news)
    renewed = connection.execute(
        first.on_conflict_do_update(
            index_elements=[nodes.c.name],
            set_=news | {"started_at": _started_at(report.instance)},
            where=or_(nodes.c.instance == report.instance, nodes.c.lease_until <= database_clock(), literal(take_over)),
        )
    )
    if renewed.rowcount == 0:
        raise NodeNameTaken(
            f'another running service is the node "{report.name}" of this database: give each a name of its own in '
            "node.name"
        )
    return every(connection)


def every(connection: Connection) -> list[Node]:
    """All nodes that were not forgotten, by name."""
    now = database_clock()
    query = select(
        nodes,
        (now - nodes.c.started_at).label("started"),
        (now - nodes.c.seen_at).label("seen"),
        (nodes.c.lease_until - now).label("lease_left"),
        (nodes.c.clock - nodes.c.seen_at).label("clock_ahead"),
    ).order_by(nodes.c.name)
    return [
        Node(
            name=row.name,
            instance=row.instance,
            address=row.address,
            version=row.version,
            schema_min=row.schema_min,
            schema_max=row.schema_max,
            started=row.started,
            seen=row.seen,
            lease_left=row.lease_left,
            clock_ahead=row.clock_ahead,
            zones=_parse_zones(row.zones),
        )
        for row in connection.execute(query)
    ]


def end_lease(connection: Connection, name: str, instance: str) -> None:
    """End the lease of a node that answers no more queries, so that no other node waits for it."""
    connection.execute(
        nodes.update().where(nodes.c.name == name, nodes.c.instance == instance).values(lease_until=database_clock())
    )


def forget(connection: Connection, name: str) -> None:
    """
    Remove a node whose lease has ended.

    Raises `NotFound` if there is no such node, `NodeNameTaken` if its lease is live.
    """
    found = next((node for node in every(connection) if node.name == name), None)
    if found is None:
        raise NotFound(f'there is no node "{name}": see responder node list')
    if found.is_live:
        raise NodeNameTaken(f'the node "{name}" is running: stop it first')
    connection.execute(delete(nodes).where(nodes.c.name == name, nodes.c.instance == found.instance))


def _started_at(instance: str) -> Any:
    """The start of the service that has the row, kept while it is the same one."""
    return case((nodes.c.instance == instance, nodes.c.started_at), else_=database_clock())


def _render_zones(zones: Mapping[Name, ServedZone]) -> dict[str, dict[str, object]]:
    return {str(apex): {"serial": zone.serial, "static": zone.static} for apex, zone in zones.items()}


def _parse_zones(zones: Mapping[str, Mapping[str, Any]]) -> dict[Name, ServedZone]:
    return {
        Name.parse(apex): ServedZone(serial=int(zone["serial"]), static=str(zone["static"]))
        for apex, zone in zones.items()
    }
