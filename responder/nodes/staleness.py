"""
What a node does that may be stale: it compares itself with the other nameservers of the zone, by their serials.

A node without a lease is not waited for by the others, so they may have gone on. If one of the other nameservers is
ahead, or gives no serial to compare, this node does not vouch for its values any more. If none is ahead, it does: DNS
goes on without the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import structlog

from responder.errors import ResponderError
from responder.logs import Outage
from responder.names import Name
from responder.nodes.membership import Membership

ASK_DEADLINE = 0.5
"""Seconds for the answer of another nameserver: with it, a decision is there before others go on without this node."""

INTERVAL = 0.5
"""Seconds between looks at the lease, and between comparisons without one."""

HALF = 1 << 31
"""Half of the serials: of two that are so far apart, neither is ahead (RFC 1982, section 3.2)."""

_log = structlog.get_logger("nodes")

Ask = Callable[[str, Name], Awaitable[int | None]]
"""The serial that the server at an address gives for a zone, on the wire; None if it gives none."""


@dataclass(eq=False)
class Staleness:
    """
    Decides for how long the nameservers of this node may answer for its values.

    *published* are the serials that they serve; *catch_up* publishes what was committed by now. *servers* are the
    addresses of the other nameservers of each zone. *vouch* is called with the seconds for
    which the nameservers may go on.
    """

    membership: Membership
    published: Callable[[], Mapping[Name, int]]
    catch_up: Callable[[], Awaitable[None]]
    servers: Mapping[Name, Sequence[str]]
    ask: Ask
    vouch: Callable[[float], object]
    _lapses: int = 0
    _had_lease: bool = False

    async def run(self) -> None:
        """Look and compare until cancelled."""
        outage = Outage(
            _log,
            "this node may be stale: its nameservers answer SERVFAIL for challenge values",
            "this node answers for challenge values again",
        )
        while True:
            reason = await self.reason()
            if reason is None:
                outage.is_over()
            else:
                outage.goes_on(reason)
            await asyncio.sleep(INTERVAL)

    async def reason(self) -> str | None:
        """Vouch for this node's values for a while, or return the reason why it may be stale."""
        if self.membership.is_current:
            return await self._vouch_by_lease()
        if self._had_lease:
            self._had_lease = False
            _log.warning("the lease of this node has ended: comparing with the other nameservers")
        published = self.published()
        found = await asyncio.gather(*(self._compare(apex, serial) for apex, serial in published.items()))
        reasons = [reason for each in found for reason in each]
        if reasons:
            return min(reasons)
        self.vouch(ASK_DEADLINE + 2 * INTERVAL)
        return None

    async def _vouch_by_lease(self) -> str | None:
        """The others wait for this node: it lacks at most what was committed before it had its lease."""
        lapses = self.membership.lapses
        if lapses != self._lapses:
            try:
                await self.catch_up()
            except ResponderError as fault:
                return str(fault)
            self._lapses = lapses
        self._had_lease = True
        if lapses == self.membership.lapses and self.membership.is_current:
            self.vouch(self.membership.lease_left)
        return None

    async def _compare(self, apex: Name, serial: int) -> list[str]:
        """Why this node, with *serial* of *apex*, may be behind."""
        addresses = self.servers.get(apex, ())
        serials = await asyncio.gather(*(self.ask(address, apex) for address in addresses))
        return [
            f"the nameserver {address} of {apex} {'gives no serial' if theirs is None else 'is ahead'}"
            for address, theirs in zip(addresses, serials, strict=True)
            if theirs is None or not _is_at_least(serial, theirs)
        ]


def asking(port: int) -> Ask:
    """Asks for SOA records by UDP, at *port*."""

    async def ask(address: str, apex: Name) -> int | None:
        query = dns.message.make_query(apex.fqdn, dns.rdatatype.SOA, flags=0)
        try:
            reply = await dns.asyncquery.udp(query, address, port=port, timeout=ASK_DEADLINE)
        except (OSError, dns.exception.DNSException):
            return None
        soas = [rdata for rrset in reply.answer if rrset.rdtype == dns.rdatatype.SOA for rdata in rrset]
        return int(soas[0].serial) if reply.rcode() == dns.rcode.NOERROR and soas else None

    return ask


def _is_at_least(ours: int, theirs: int) -> bool:
    """Whether *ours* is not behind *theirs*, as serials on the wire compare (RFC 1982)."""
    return (ours - theirs) % (1 << 32) < HALF
