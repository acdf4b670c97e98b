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

from responder import metrics
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

LOOK_INTERVAL = 0.2
"""Seconds between looks at the other nodes while a change waits for them, should their hints be lost."""

VOUCHED = 1.5
"""Seconds for which a node without a lease answers for its values after it began to ask, and found no other ahead."""

SILENT = VOUCHED + 0.1
"""Seconds after which it does not any more, since a change is served elsewhere; clocks need not agree to the last."""

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
    *clock_ahead* is by how many seconds, at least, the clock of this node is ahead of the clock of the database.
    """

    store: Store
    myself: Myself
    share: Callable[[], object] = lambda: None
    interval: float = RENEW_INTERVAL
    is_alone: bool = False
    clock: Callable[[], float] = time.monotonic
    nodes: Sequence[Node] = ()
    _serials: dict[Name, int] = field(default_factory=dict)
    _ahead: dict[tuple[str, str, Name], tuple[int, float]] = field(default_factory=dict)
    lapses: int = 0
    clock_ahead: float = 0.0
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
        """
        Return the other nodes that may answer queries for values of the zone *apex*.

        They have a live lease, or may not have noticed yet that other nodes are ahead of them.
        """
        if self.is_alone:
            return []
        others = [node for node in self.nodes if apex in node.zones and node.name != self.myself.name]
        return [node for node in others if node.is_live or not self._is_silent(node, apex)]

    def applied(self, serials: Mapping[Name, int]) -> None:
        """Note that every nameserver of this node serves these *serials*, and report it to the other nodes soon."""
        self._serials |= serials
        self._note_ahead()
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
        self._compare_clocks(took=self.clock() - begun)
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
                async with asyncio.timeout(max(0.0, due - self.clock())):
                    await self._wake.wait()
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
        while not condition():
            try:
                async with asyncio.timeout(LOOK_INTERVAL), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                self.look()

    def _is_silent(self, node: Node, apex: Name) -> bool:
        """
        Return whether a node without a lease has had the time to notice that this node is ahead of it.

        Until then it may answer queries for values, because it has found no node that is ahead (see `staleness`).
        """
        serial, since = self._ahead.get((node.name, node.instance, apex), (None, 0.0))
        return serial == node.zones[apex].serial and self.clock() - since >= SILENT

    def _note_ahead(self) -> None:
        """Note since when this node has been ahead of each other node whose serial has not changed since then."""
        before, self._ahead = self._ahead, {}
        for node in self.nodes:
            for apex, zone in node.zones.items():
                if zone.serial < self._serials.get(apex, 0):
                    key, now = (node.name, node.instance, apex), (zone.serial, self.clock())
                    known = before.get(key, now)
                    self._ahead[key] = known if known[0] == zone.serial else now

    def _measure(self) -> None:
        metrics.CLOCK.set(self.clock_ahead)
        metrics.LEASE.clear()
        metrics.SERIAL.clear()
        for node in self.nodes:
            metrics.LEASE.labels(node.name).set(node.lease_left)
            for apex, zone in node.zones.items():
                metrics.SERIAL.labels(node.name, str(apex)).set(zone.serial)

    async def _notify(self) -> None:
        self._note_ahead()
        self._measure()
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

    def _compare_clocks(self, took: float) -> None:
        """Note how far the clocks are apart. The database looked at its own at some time while this *took* place."""
        ahead = next((node.clock_ahead for node in self.nodes if node.name == self.myself.name), 0.0)
        self.clock_ahead = max(ahead, 0.0) or min(ahead + took, 0.0)

    @property
    def clock_condition(self) -> str:
        """What there is to report of the clock of this node, with the fix; "ok" if it agrees with the database's."""
        for limit, name in ((CLOCK_ALARM, "a minute"), (CLOCK_WARNING, "a second")):
            if abs(self.clock_ahead) > limit:
                return f"the clocks of this node and of the database differ by more than {name}: synchronize both"
        return "ok"

    @property
    def condition(self) -> str:
        """What differs between the live nodes and should not, with the fix; "ok" if nothing does."""
        return "; ".join(differences(self.nodes, self.myself.name)) or "ok"

    def _report_differences(self) -> None:
        alarm = abs(self.clock_ahead) > CLOCK_ALARM
        for text in (self.clock_condition, *differences(self.nodes, self.myself.name)):
            if text != "ok" and (more := self._differences.due(text)) is not None:
                (_log.error if alarm and text == self.clock_condition else _log.warning)(text, more=more)


def differences(nodes: Sequence[Node], name: str) -> list[str]:
    """Return the differences between the node *name* and the other live nodes, each with the fix."""
    live = {node.name: node for node in nodes if node.is_live}
    if (me := live.get(name)) is None:
        return []
    return [
        f"the node {other.name} has other settings or records for {apex}: use the same ones on all nodes"
        for other in live.values()
        for apex, zone in other.zones.items()
        if apex in me.zones and me.zones[apex].static != zone.static
    ]
