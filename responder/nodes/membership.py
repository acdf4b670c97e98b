"""
The lease of this node, and what is known of the others.

A node writes what it serves together with each renewal, and reads about all others in the same transaction. Leases are
compared in the database's clock; when its own has ended, the node knows by its monotonic clock, a margin earlier.
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
"""Seconds between renewals: several of them fit into a lease, so a slow one does not end it."""

RETRY_INTERVAL = 0.5
"""Seconds until the next attempt after one that failed."""

MARGIN = 1.0
"""Seconds before its end at which a lease is no longer relied upon: clocks drift, and an answer takes its time."""

CLOCK_WARNING, CLOCK_ALARM = 1.0, 60.0
"""Seconds between the clock of a node and the database's: expiry of values and serials follow the node's."""

REPEAT = 600.0
"""Seconds between two lines about the same difference between nodes."""

_log = structlog.get_logger("nodes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Myself:
    """What does not change about this node while it runs; *lease* is how long it counts as live after a renewal."""

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
    The lease of the node *myself* in *store*, and all nodes as they were at the last look.

    *share* lets the other nodes know that there is something new to read about this one. A node that *is_alone* on its
    database has no others to report to. *lapses* counts how often the lease was taken without having been held.
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
        self._outage = Outage(_log, "cannot renew the lease of this node", "the lease of this node is renewed again")

    @property
    def is_current(self) -> bool:
        """Whether the lease is held: then no other node goes on without waiting for this one."""
        return self.clock() < self._good_until

    @property
    def lease_left(self) -> float:
        """Seconds for which the lease can be relied upon; negative if it cannot."""
        return self._good_until - self.clock()

    def others(self, apex: Name) -> list[Node]:
        """The other nodes with a live lease that serve the zone *apex*."""
        if self.is_alone:
            return []
        return [node for node in self.nodes if node.is_live and apex in node.zones and node.name != self.myself.name]

    def applied(self, serials: Mapping[Name, int]) -> None:
        """Every nameserver of this node serves these *serials*: let the other nodes know soon."""
        self._serials |= serials
        if not self.is_alone:
            self._has_news = True
            self._wake.set()

    def look(self) -> None:
        """Read about the other nodes now instead of at the next renewal: one of them has news."""
        self._wake.set()

    async def renew(self) -> None:
        """
        Renew the lease once. Raises `NodeNameTaken`, `StoreUnavailable`.

        A node that is alone takes the lease at its start from any other: that was this service before it was killed,
        and must not keep it from starting again.
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
        Take the lease at the start. Raises `StoreUnavailable`, or `NodeNameTaken` if another service keeps it.

        A service that was killed leaves its lease behind, so this waits until such a lease has ended.
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
        """Renew until cancelled."""
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
        """End the lease: this node answers no more queries. What fails is left to the end of the lease."""
        self._good_until = 0.0
        with suppress(ResponderError, TimeoutError):
            async with asyncio.timeout(RENEW_INTERVAL):
                await self.store.end_lease(self.myself.name, self.myself.instance)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when *condition* holds; it is asked again after each look at the other nodes."""
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
                # 0 until it is known what is served here, so that the other nodes wait for this one from its start on.
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
    What should not differ between live nodes, and does, as the node *name* sees it.

    Each is a kind, a text with the fix, and whether it is an alarm.
    """
    live = {node.name: node for node in nodes if node.is_live}
    if (me := live.get(name)) is None:
        return []
    found = []
    if abs(me.clock_ahead) > CLOCK_WARNING:
        alarm = abs(me.clock_ahead) > CLOCK_ALARM
        found.append(("clock", "the clock of this node and that of the database differ: synchronize both", alarm))
    for other in live.values():
        for apex, zone in other.zones.items():
            if apex in me.zones and me.zones[apex].static != zone.static:
                text = f"the node {other.name} has other settings or records for {apex}: use the same on every node"
                found.append((f"static {other.name} {apex}", text, False))
    return found
