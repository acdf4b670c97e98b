"""
The DNS lookups of cert-manager: zone finding, the self-check, and its conformance suite's look whether a value is gone.

Every question has RD=1 and EDNS with 4096 octets, also to authoritative servers. The rcodes met are on record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

TIMEOUT = 10.0
"""Seconds for each question."""

Server = tuple[str, int]


class LookupFailed(Exception):
    """cert-manager gives up with an error, and tries again later."""


@dataclass
class Lookups:
    """*recursive* answers for the cluster's DNS; *servers* has the nameservers by name (cert-manager asks port 53)."""

    recursive: Server
    servers: Mapping[str, Server]
    rcodes: set[dns.rcode.Rcode] = field(default_factory=set)

    async def ask(self, name: str, rdtype: str, server: Server) -> dns.message.Message:
        """UDP, and TCP if that is cut or does not come."""
        query = dns.message.make_query(name, rdtype, use_edns=0, payload=4096)
        assert query.flags & dns.flags.RD
        reply, _ = await dns.asyncquery.udp_with_fallback(query, server[0], TIMEOUT, server[1])
        self.rcodes.add(reply.rcode())
        return reply

    async def follow(self, name: str) -> str:
        """The end of the CNAME chain; any rcode but NOERROR ends it without a word."""
        seen = {name}
        while True:
            reply = await self.ask(name, "CNAME", self.recursive)
            if reply.rcode() != dns.rcode.NOERROR:
                return name
            targets = [rrset[0].to_text() for rrset in _of(reply, "CNAME") if rrset.name.to_text() == name]
            if not targets:
                return name
            name = targets[0]
            if name in seen:
                raise LookupFailed("a loop of CNAMEs")
            seen.add(name)

    async def zone(self, fqdn: str) -> str:
        """The owner of the first SOA on the way up."""
        labels = fqdn.rstrip(".").split(".")
        for start in range(len(labels)):
            name = ".".join(labels[start:]) + "."
            reply = await self.ask(name, "SOA", self.recursive)
            if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                raise LookupFailed(f"unexpected {dns.rcode.to_text(reply.rcode())} for {name}")
            found = _of(reply, "SOA")
            if found and not _of(reply, "CNAME"):
                return found[0].name.to_text()
        raise LookupFailed("there is no SOA")

    async def propagated(self, name: str, value: str) -> bool:
        """The self-check: every nameserver of the zone has a TXT whose joined strings are the value."""
        fqdn = await self.follow(name)
        reply = await self.ask(await self.zone(fqdn), "NS", self.recursive)
        nameservers = [rdata.target.to_text().lower() for rrset in _of(reply, "NS") for rdata in rrset]
        if not nameservers:
            raise LookupFailed("could not determine authoritative nameservers")
        return all([value in await self._texts(fqdn, self.servers[nameserver]) for nameserver in nameservers])

    async def deleted(self, fqdn: str, value: str) -> bool:
        """The suite's look: NXDOMAIN, or no TXT with the value as one of its strings; anything else ends the test."""
        return value not in await self._texts(fqdn, self.recursive)

    async def _texts(self, fqdn: str, server: Server) -> set[str]:
        reply = await self.ask(fqdn, "TXT", server)
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise LookupFailed(f"unexpected {dns.rcode.to_text(reply.rcode())} for {fqdn}")
        return {b"".join(rdata.strings).decode() for rrset in _of(reply, "TXT") for rdata in rrset}


def _of(reply: dns.message.Message, rdtype: str) -> list[dns.rrset.RRset]:
    return [rrset for rrset in reply.answer if rrset.rdtype == dns.rdatatype.from_text(rdtype)]
