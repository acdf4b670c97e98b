"""
Whether this node may be stale: a node without a lease compares its serials with those of the zone's other nameservers.

The other nodes do not wait for a node without a lease, so they may have newer values. If another nameserver has a newer
serial, or does not answer with a serial, this node stops answering for challenge values. If no other nameserver is
ahead, it keeps answering, so that DNS works without the database.
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
from responder.nodes.membership import VOUCHED, Membership

ASK_DEADLINE = 0.5
"""Seconds to wait for the reply of another nameserver. It is short, so that a stale node stops answering in time."""

INTERVAL = 0.5
"""Seconds between checks of the lease, and between comparisons without a lease."""

SOON = 1.0
"""Seconds before the end of a lease at which comparisons begin, so that there is no time without an answer between."""

HALF = 1 << 31
"""Half of the number of serials. Of two serials this far apart, neither is ahead (RFC 1982, section 3.2)."""

_log = structlog.get_logger("nodes")

Ask = Callable[[str, Name], Awaitable[int | None]]
"""Returns the serial of a zone on the server at an address, as on the wire; None if the server gives no serial."""


@dataclass(eq=False)
class Staleness:
    """
    Decides how long the nameservers of this node may answer for challenge values.

    *published* returns the serials that they serve, and *catch_up* publishes the changes that are committed by now.
    *servers* are the addresses of the other nameservers of each zone, and *ask* asks one of them. *vouch* is called
    with the number of seconds for which the nameservers of this node may answer.
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
        """Check the lease, or compare serials, until cancelled."""
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
        """Call `vouch` and return None, or return the reason why this node may be stale."""
        if self.membership.is_current:
            reason = await self._vouch_by_lease()
            if reason is None and self.membership.lease_left <= SOON:
                await self._vouch_by_comparison()
            return reason
        if self._had_lease:
            self._had_lease = False
            _log.warning("the lease of this node has ended: comparing with the other nameservers")
        reasons = await self._vouch_by_comparison()
        if reasons:
            self.vouch(0.0)
        return min(reasons, default=None)

    async def _vouch_by_comparison(self) -> list[str]:
        """Vouch if no other is ahead; or else the reasons why this node may be behind."""
        begun, published = self.membership.clock(), self.published()
        found = await asyncio.gather(*(self._compare(apex, serial) for apex, serial in published.items()))
        reasons = [reason for each in found for reason in each]
        if not reasons:
            self.vouch(begun + VOUCHED - self.membership.clock())
        return reasons

    async def _vouch_by_lease(self) -> str | None:
        """
        Call `vouch` until the end of the lease. While it has the lease, the other nodes wait for this one, so it can
        lack only changes from before; they are published first. Returns the reason if that fails.
        """
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
        """Return the reasons why this node, which serves *serial* of *apex*, may be behind."""
        addresses = self.servers.get(apex, ())
        serials = await asyncio.gather(*(self.ask(address, apex) for address in addresses))
        return [
            f"the nameserver {address} of {apex} {'gives no serial' if theirs is None else 'has a newer serial'}"
            for address, theirs in zip(addresses, serials, strict=True)
            if theirs is None or not _is_at_least(serial, theirs)
        ]


def asking(port: int) -> Ask:
    """Return a function that asks servers for their SOA record by UDP, at *port*."""

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
    """Return whether *ours* is not behind *theirs*; both are serials on the wire (RFC 1982)."""
    return (ours - theirs) % (1 << 32) < HALF
