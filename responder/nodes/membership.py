"""
The lease of this node, and the reports of the others.

Each renewal of the lease writes a report on what this node serves, and reads the reports of all nodes, in the same
transaction. Leases are measured with the clock of the database. This node measures its own lease with its monotonic
clock as well, and stops relying on it some time before its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from responder.errors import NodeNameTaken, ResponderError
from responder.logs import Outage, Seldom
from responder.names import Name
from responder.store import Node, NodeReport, ServedZone, Store

RENEW_INTERVAL = 1.0
"""Seconds between renewals. Several of them fit into a lease, so that a slow one does not end it."""

RETRY_INTERVAL = 0.5
"""Seconds until the next attempt after one that failed."""

MARGIN = 1.0
"""Seconds before the end of a lease at which a node stops relying on it: clocks drift, and answers take time."""

CLOCK_WARNING, CLOCK_ALARM = 1.0, 60.0
"""
Seconds between the clocks of a node and of the database above which a warning or an error is logged. The clock of the
node decides when values expire, and which serials are made.
"""

REPEAT = 600.0
"""Seconds between two log lines about the same difference between nodes."""

_log = structlog.get_logger("nodes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Myself:
    """What does not change about this node while it runs. *lease* is how long it is live after a renewal."""

    name: str
    instance: str
    address: str
    version: str
    schema_min: str
    schema_max: str
    statics: Mapping[Name, str]
    lease: timedelta


@dataclass(eq=False)
class Membership:
    """
    The lease of the node *myself* in *store*, and all nodes as they were when they were last read.

    *share* sends a hint to the other nodes that this node has written a new report. A node that *is_alone* is the only
    one on its database. *lapses* counts how often the lease was taken after it had ended, or for the first time.
    """

    store: Store
    myself: Myself
    share: Callable[[], object] = lambda: None
    interval: float = RENEW_INTERVAL
    is_alone: bool = False
    clock: Callable[[], float] = time.monotonic
    nodes: Sequence[Node] = ()
    _serials: dict[Name, int] = field(default_factory=dict)
    lapses: int = 0
    _has_news: bool = False
    _good_until: float = 0.0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _outage: Outage = field(init=False)
    _differences: Seldom = field(default_factory=lambda: Seldom(REPEAT))

    def __post_init__(self) -> None:
        self._outage = Outage(_log, "cannot renew the lease of this node", "can renew the lease of this node again")

    @property
    def is_current(self) -> bool:
        """Whether this node has its lease; as long as it does, the other nodes wait for it."""
        return self.clock() < self._good_until

    @property
    def lease_left(self) -> float:
        """How many seconds this node can still rely on its lease; negative if it cannot."""
        return self._good_until - self.clock()

    def others(self, apex: Name) -> list[Node]:
        """Return the other nodes with a live lease that serve the zone *apex*."""
        if self.is_alone:
            return []
        return [node for node in self.nodes if node.is_live and apex in node.zones and node.name != self.myself.name]

    def applied(self, serials: Mapping[Name, int]) -> None:
        """Note that every nameserver of this node serves these *serials*, and report it to the other nodes soon."""
        self._serials |= serials
        if not self.is_alone:
            self._has_news = True
            self._wake.set()

    def look(self) -> None:
        """Read the reports of the other nodes now instead of at the next renewal, because one of them is new."""
        self._wake.set()

    async def renew(self) -> None:
        """
        Renew the lease once. Raises `NodeNameTaken` if another service has the name, or `StoreUnavailable`.

        A node that is alone on its database takes over a live lease at its start: it is the lease of this service from
        before it was killed.
        """
        begun, has_news, self._has_news = self.clock(), self._has_news, False
        take_over = self.is_alone and not self._good_until
        self.nodes = await self.store.renew_lease(self._report(), lease=self.myself.lease, take_over=take_over)
        if begun >= self._good_until:
            self.lapses += 1
        self._good_until = begun + self.myself.lease.total_seconds() - MARGIN
        if has_news:
            self.share()
        self._report_differences()
        await self._notify()

    async def join(self) -> None:
        """
        Take the lease at the start. Raises `StoreUnavailable`, or `NodeNameTaken` if another service keeps renewing it.

        If this service was killed before, its lease is still live, so this waits until that lease has ended.
        """
        give_up = self.clock() + 2 * self.myself.lease.total_seconds()
        while True:
            try:
                return await self.renew()
            except NodeNameTaken as fault:
                if self.clock() >= give_up:
                    raise
                if self._differences.due("name") is not None:
                    _log.warning("waiting for the lease of an earlier service with this name to end", reason=str(fault))
            await asyncio.sleep(RETRY_INTERVAL)

    async def run(self) -> None:
        """Renew the lease until cancelled."""
        due = 0.0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, due - self.clock()))
            self._wake.clear()
            try:
                async with asyncio.timeout(self.myself.lease.total_seconds()):
                    if self._has_news or self.clock() >= due:
                        due = self.clock() + self.interval
                        await self.renew()
                    else:
                        self.nodes = await self.store.nodes()
                        await self._notify()
            except (ResponderError, TimeoutError) as fault:
                self._has_news, due = True, 0.0
                self._outage.goes_on(str(fault) or "the database does not answer in time")
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                self._outage.is_over()

    async def leave(self) -> None:
        """End the lease, because this node answers no more queries. If that fails, the lease ends by itself later."""
        self._good_until = 0.0
        with suppress(ResponderError, TimeoutError):
            async with asyncio.timeout(RENEW_INTERVAL):
                await self.store.end_lease(self.myself.name, self.myself.instance)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when *condition* is true. It is evaluated each time the reports of the other nodes were read."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _report(self) -> NodeReport:
        me = self.myself
        return NodeReport(
            name=me.name,
            instance=me.instance,
            address=me.address,
            version=me.version,
            schema_min=me.schema_min,
            schema_max=me.schema_max,
            clock=time.time(),
            zones={
                # The serial is 0 until it is known, so that the other nodes wait for this node from its start on.
                apex: ServedZone(serial=self._serials.get(apex, 0), static=static)
                for apex, static in me.statics.items()
            },
        )

    def _report_differences(self) -> None:
        for kind, text, log in differences(self.nodes, self.myself.name):
            if (more := self._differences.due(kind)) is not None:
                (_log.error if log else _log.warning)(text, more=more)


def differences(nodes: Sequence[Node], name: str) -> list[tuple[str, str, bool]]:
    """
    Return the differences between the node *name* and the other live nodes that an administrator should fix.

    Each is a kind, the text to log, and whether it is an error.
    """
    live = {node.name: node for node in nodes if node.is_live}
    if (me := live.get(name)) is None:
        return []
    found = []
    if abs(me.clock_ahead) > CLOCK_WARNING:
        alarm = abs(me.clock_ahead) > CLOCK_ALARM
        found.append(("clock", "the clocks of this node and of the database differ: synchronize them", alarm))
    for other in live.values():
        for apex, zone in other.zones.items():
            if apex in me.zones and me.zones[apex].static != zone.static:
                text = f"the node {other.name} has other settings or records for {apex}: use the same ones on all nodes"
                found.append((f"static {other.name} {apex}", text, False))
    return found
