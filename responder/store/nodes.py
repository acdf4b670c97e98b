"""
Nodes: the running services on one database, their leases, and the serials that each of them serves.

Leases are measured with the clock of the database. A node is live until its lease ends, even if it stopped before.
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
    """A zone as a node serves it: its serial, and the digest of its static records in hexadecimal digits."""

    serial: int
    static: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """
    What a node writes about itself when it renews its lease.

    *instance* is different at each start of the service, so that two services with the same name are distinguished.
    *clock* is the clock of the node, in seconds since 1970.
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
    A node as it is stored in the database.

    *started* is how many seconds ago it started, and *seen* how many seconds ago it renewed its lease. *lease_left* is
    the number of seconds until its lease ends; it is negative if the lease has ended. *clock_ahead* is how many seconds
    its clock was ahead of the clock of the database at the last renewal.
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
        """Whether other nodes have to wait for it, because it may be answering queries."""
        return self.lease_left > 0


def renew(connection: Connection, report: NodeReport, *, lease: timedelta, take_over: bool = False) -> list[Node]:
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
            f'another running service has the node name "{report.name}" in this database: give each node a different '
            "name in node.name"
        )
    return every(connection)


def every(connection: Connection) -> list[Node]:
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
    mine = (nodes.c.name == name, nodes.c.instance == instance)
    connection.execute(nodes.update().where(*mine).values(lease_until=database_clock(), zones={}))


def forget(connection: Connection, name: str) -> None:
    found = next((node for node in every(connection) if node.name == name), None)
    if found is None:
        raise NotFound(f'there is no node "{name}": see responder node list')
    if found.is_live:
        raise NodeNameTaken(f'the node "{name}" is running: stop it first')
    connection.execute(delete(nodes).where(nodes.c.name == name, nodes.c.instance == found.instance))


def _started_at(instance: str) -> Any:
    """Return when the service started: the stored time if this *instance* wrote it, otherwise now."""
    return case((nodes.c.instance == instance, nodes.c.started_at), else_=database_clock())


def _render_zones(zones: Mapping[Name, ServedZone]) -> dict[str, dict[str, object]]:
    return {str(apex): {"serial": zone.serial, "static": zone.static} for apex, zone in zones.items()}


def _parse_zones(zones: Mapping[str, Mapping[str, Any]]) -> dict[Name, ServedZone]:
    return {
        Name.parse(apex): ServedZone(serial=int(zone["serial"]), static=str(zone["static"]))
        for apex, zone in zones.items()
    }
