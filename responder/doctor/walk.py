"""
Finds the servers of a name with the help of a resolver.

A resolver knows the root, so this works on the internet and in test setups. Its replies are trusted down to the parent
of our zone. From there on, the servers themselves are queried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import dns.exception
import dns.resolver
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.SOA import SOA

from responder.doctor.questions import DNS_PORT, Address, Asker, Failure, QueryResult, Reply, Server, from_dnspython
from responder.errors import CannotExamine
from responder.names import Name

RESOLV_CONF = "/etc/resolv.conf"

_ROOT = Name.parse(".")


def system_resolvers() -> list[str]:
    """The addresses of the resolvers that this machine uses. Raises `CannotExamine` if there are none."""
    try:
        return [str(server) for server in dns.resolver.Resolver(RESOLV_CONF).nameservers]
    except dns.exception.DNSException:
        raise CannotExamine(f"{RESOLV_CONF} has no resolver: choose one with --resolver") from None


class Walk:
    """
    One resolver, and the servers that it has found, which all use *port*. Get one from `Walk.start`.
    """

    def __init__(self, asker: Asker, resolver: Server, port: int) -> None:
        self.asker = asker
        self.resolver = resolver
        self.port = port
        self._servers: dict[Name, asyncio.Task[tuple[Server, ...]]] = {}

    @classmethod
    async def start(cls, asker: Asker, resolvers: Sequence[Server], port: int) -> Walk:
        """
        Use the first of *resolvers* that replies. Other servers use *port*.

        Raises `CannotExamine` if no resolver replies.
        """
        faults = []
        for resolver in resolvers:
            outcome = await asker.ask_resolver(resolver, _ROOT, "NS")
            if isinstance(outcome, Reply):
                return cls(asker, resolver, port)
            at = "" if resolver.port == DNS_PORT else f", port {resolver.port},"
            faults.append(f"the resolver {resolver.address}{at} {outcome.value}")
        raise CannotExamine(f"{', '.join(faults)}: choose another with --resolver ADDRESS[:PORT]")

    async def resolve(self, name: Name, rrtype: str) -> QueryResult:
        """The reply of the resolver."""
        return await self.asker.ask_resolver(self.resolver, name, rrtype)

    async def zone_of(self, name: Name) -> Name | None:
        """The zone that contains *name*; None if the resolver does not find it."""
        ancestors = [name]
        while ancestors[-1].parent != _ROOT and ancestors[-1] != _ROOT:
            ancestors.append(ancestors[-1].parent)
        outcomes = await asyncio.gather(*(self.resolve(ancestor, "SOA") for ancestor in ancestors))
        # The deepest name with an SOA: an alias has the SOA of another zone, and a name may not exist.
        zones = (_holder(ancestor, outcome) for ancestor, outcome in zip(ancestors, outcomes, strict=True))
        return next((zone for zone in zones if zone is not None), None)

    async def servers_of(self, zone: Name) -> tuple[Server, ...]:
        """Every address of every nameserver of *zone*; none if the resolver does not find them."""
        if zone not in self._servers:
            self._servers[zone] = asyncio.create_task(self._find_servers(zone))
        return await self._servers[zone]

    async def addresses_of(self, name: Name) -> tuple[Address, ...]:
        """The addresses of a host, IPv4 first."""
        outcomes = await asyncio.gather(*(self.resolve(name, rrtype) for rrtype in ("A", "AAAA")))
        found = (out.addresses(out.alias_end(name)) for out in outcomes if isinstance(out, Reply))
        return tuple(sorted(set[Address]().union(*found), key=lambda address: (address.version, int(address))))

    async def alias_end(self, name: Name) -> Name:
        """The name that *name* is an alias of, according to the resolver; *name* itself if it is not an alias."""
        outcome = await self.resolve(name, "A")
        return outcome.alias_end(name) if isinstance(outcome, Reply) else name

    async def _find_servers(self, zone: Name) -> tuple[Server, ...]:
        outcome = await self.resolve(zone, "NS")
        if isinstance(outcome, Failure):
            return ()
        names = sorted(from_dnspython(rdata.target) for rdata in outcome.answer_records(zone, NS))
        found = await asyncio.gather(*map(self.addresses_of, names))
        return tuple(
            Server(str(name), str(address), self.port)
            for name, addresses in zip(names, found, strict=True)
            for address in addresses
        )


def _holder(name: Name, outcome: QueryResult) -> Name | None:
    """The zone that contains *name*, according to the reply to a query for its SOA; None if it does not show one."""
    if isinstance(outcome, Failure):
        return None
    if outcome.answer_records(name, SOA):
        return name
    owners = (from_dnspython(rrset.name) for rrset in outcome.message.authority)
    return next((o for o in owners if name.is_within(o) and outcome.authority_records(o, SOA)), None)
