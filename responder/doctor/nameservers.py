"""
Checks that our own nameservers work for resolvers: each address is queried over UDP and TCP, with and without EDNS.

The addresses are those of the settings; `delegation` checks whether the parent zone has the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import dns.name
from dns.rdtypes.ANY.SOA import SOA

from responder.config import ZoneSettings
from responder.dns.zone import SERIAL_MODULUS
from responder.doctor.questions import Asker, Failure, QueryResult, Reply, Server, query, to_dnspython, wait_for_none
from responder.doctor.report import CheckName, Finding, cross, dig, note, tick
from responder.doctor.walk import Walk
from responder.names import Name

FOLLOW_PATIENCE = 3.0
"""Seconds that a nameserver has to follow a change: three times what it promises."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """What one address replies to the query for the SOA of the zone, sent in four ways."""

    server: Server
    plain: QueryResult
    edns: QueryResult
    mixed: QueryResult
    tcp: QueryResult

    @property
    def is_unrouted(self) -> bool:
        return self.plain is self.tcp is Failure.UNROUTED

    @property
    def is_dead(self) -> bool:
        return isinstance(self.plain, Failure) and isinstance(self.tcp, Failure)

    def lameness(self, apex: Name) -> str | None:
        """How it fails to answer for the zone; None if it answers."""
        reply = next(outcome for outcome in (self.plain, self.tcp) if isinstance(outcome, Reply))
        if reply.rcode != "NOERROR":
            return f"replies with {reply.reason}"
        if not reply.answer_records(apex, SOA):
            return "has no SOA record for it"
        return None if reply.is_authoritative else "answers without authority"


async def find(walk: Walk, zone: ZoneSettings) -> list[Server]:
    """Every address of every nameserver of *zone*: ours from the settings, those outside from the resolver."""
    names = list(zone.nameservers)
    found = await asyncio.gather(*(_addresses(walk, zone, name) for name in names))
    return [
        Server(str(name), address, walk.port)
        for name, addresses in zip(names, found, strict=True)
        for address in addresses
    ]


async def examine(
    walk: Walk, zone: ZoneSettings, servers: Sequence[Server], serial: int | None
) -> tuple[list[Finding], list[Server]]:
    """Probe *servers*, which should have *serial* or a later one. Also returns those that answer for the zone."""
    probes = await asyncio.gather(*(_probe(walk.asker, server, zone.name) for server in servers))
    findings = [*await _judge_names(walk, zone), *_judge_addresses(zone, servers)]
    if away := [str(probe.server) for probe in probes if probe.is_unrouted]:
        findings.append(note(CheckName.REACHABLE, f"skipped, because this machine has no route to {', '.join(away)}"))
    routed = [probe for probe in probes if not probe.is_unrouted]
    findings += _judge_reach(routed, zone.name)
    alive = [probe for probe in routed if not probe.is_dead]
    findings += _judge_transports(alive, zone.name)
    findings += _judge_authority(zone, alive)
    good = [probe for probe in alive if probe.lameness(zone.name) is None]
    findings += _judge_packets(good, zone.name)
    serving = [probe.server for probe in good]
    findings += await _judge_serials(walk.asker, zone.name, serving, serial)
    return findings, serving


async def _addresses(walk: Walk, zone: ZoneSettings, name: Name) -> list[str]:
    return [str(address) for address in zone.nameservers[name] or await walk.addresses_of(name)]


async def _probe(asker: Asker, server: Server, apex: Name) -> _Probe:
    name = to_dnspython(apex)
    plain, edns, mixed, tcp = await asyncio.gather(
        asker.over_udp(server, query(name, "SOA", edns=False)),
        asker.over_udp(server, query(name, "SOA")),
        asker.over_udp(server, query(mix_case(name), "SOA", edns=False)),
        asker.over_tcp(server, query(name, "SOA")),
    )
    return _Probe(server, plain, edns, mixed, tcp)


def mix_case(name: dns.name.Name) -> dns.name.Name:
    """The same name with every other letter in upper case, as resolvers mix them to make forgery harder."""
    return dns.name.Name([_every_other(label.lower(), label.upper()) for label in name.labels])


def _every_other(lower: bytes, upper: bytes) -> bytes:
    return b"".join((upper if at % 2 else lower)[at : at + 1] for at in range(len(lower)))


async def _judge_names(walk: Walk, zone: ZoneSettings) -> list[Finding]:
    """A nameserver's name must not be an alias (RFC 2181, section 10.3): some resolvers do not follow it."""
    names = list(zone.nameservers)
    ends = await asyncio.gather(*map(walk.alias_end, names))
    return [
        cross(
            CheckName.NAMESERVER,
            f"nameserver {name} is an alias of {end}, which some resolvers refuse (RFC 2181, section 10.3)",
            f"in the zone that holds {name}, replace its CNAME by its addresses:",
            *await _address_records(walk, zone, name),
        )
        for name, end in zip(names, ends, strict=True)
        if end != name
    ]


async def _address_records(walk: Walk, zone: ZoneSettings, name: Name) -> list[str]:
    """The address records for *name*, with a placeholder if it has no address."""
    addresses = [ip_address(address) for address in await _addresses(walk, zone, name)]
    records = [f"{'A' if address.version == 4 else 'AAAA'} {address}" for address in addresses]
    return [f"{name.fqdn} {zone.static_ttl} IN {record}" for record in records or ["A ITS.PUBLIC.ADDRESS"]]


def _judge_addresses(zone: ZoneSettings, servers: Sequence[Server]) -> Iterator[Finding]:
    found = {server.name for server in servers}
    for name in zone.nameservers:
        if str(name) not in found:
            yield cross(
                CheckName.REACHABLE,
                f"nameserver {name} has no address",
                f"add its address to the zone that holds {name}, or remove it from [zones.nameservers]:",
                f"{name.fqdn} {zone.static_ttl} IN A ITS.PUBLIC.ADDRESS",
            )
    private = [server.address for server in servers if not _is_public(server.address)]
    if private:
        yield note(CheckName.PUBLIC, f"no CA on the internet can reach {', '.join(private)}")
    elif servers:
        yield tick(CheckName.PUBLIC, "all addresses of nameservers are public")


def _is_public(address: str) -> bool:
    parsed = ip_address(address)
    return parsed.is_global and not parsed.is_multicast


def _judge_reach(probes: Sequence[_Probe], apex: Name) -> Iterator[Finding]:
    for probe in probes:
        if probe.is_dead:
            yield cross(
                CheckName.REACHABLE,
                f"{probe.server} replies neither over UDP nor over TCP",
                f"start the service there, and open port {probe.server.port} to it, for UDP and TCP; then both "
                "of these get a reply:",
                dig(probe.server, apex, "SOA", "+notcp"),
                dig(probe.server, apex, "SOA", "+tcp"),
            )


def _judge_transports(probes: Sequence[_Probe], apex: Name) -> Iterator[Finding]:
    failures = {
        CheckName.UDP: [(probe.server, probe.plain) for probe in probes if isinstance(probe.plain, Failure)],
        CheckName.TCP: [(probe.server, probe.tcp) for probe in probes if isinstance(probe.tcp, Failure)],
    }
    for check, failed in failures.items():
        for server, failure in failed:
            yield cross(
                check,
                f"{server} {failure.value} over {check.value}",
                f"open {check.value} port {server.port} to it in firewalls, load balancers and security groups; then "
                "this gets a reply:",
                dig(server, apex, "SOA", "+tcp" if check is CheckName.TCP else "+notcp"),
            )
        if probes and not failed:
            yield tick(check, f"{len(probes)} of {len(probes)} addresses of nameservers reply")


def _judge_authority(zone: ZoneSettings, probes: Sequence[_Probe]) -> Iterator[Finding]:
    lame = [(probe, fault) for probe in probes if (fault := probe.lameness(zone.name)) is not None]
    for probe, fault in lame:
        yield cross(
            CheckName.AUTHORITY,
            f"{probe.server} is lame: for {zone.name}, it {fault}",
            "make sure that this service listens there, with the zone in its configuration; then this gets an "
            "answer with the flag aa:",
            dig(probe.server, zone.name, "SOA", "+norecurse"),
        )
    if probes and not lame:
        yield tick(CheckName.AUTHORITY, f"every nameserver answers for {zone.name} with authority")


def _judge_packets(probes: Sequence[_Probe], apex: Name) -> Iterator[Finding]:
    """Check EDNS and letter case, which devices on the path break more often than servers do."""
    over_udp = [probe for probe in probes if isinstance(probe.plain, Reply)]
    faults = {
        CheckName.EDNS: [(probe.server, fault) for probe in over_udp if (fault := _edns_fault(probe.edns))],
        CheckName.CASE: [(probe.server, fault) for probe in over_udp if (fault := _case_fault(probe.mixed, apex))],
    }
    good = {
        CheckName.EDNS: "queries with EDNS are answered with EDNS",
        CheckName.CASE: "replies keep the letter case of the query",
    }
    for check, found in faults.items():
        for server, fault in found:
            yield cross(
                check,
                f"{server} {fault}",
                "a device between this machine and the service changes or drops DNS packets: remove it, or disable its "
                "DNS inspection. It is fixed when this works:",
                dig(server, _mixed_text(apex), "SOA", "+norecurse", "+edns"),
            )
        if over_udp and not found:
            yield tick(check, good[check])


def _edns_fault(outcome: QueryResult) -> str | None:
    if isinstance(outcome, Failure):
        return f"{outcome.value} when a query has EDNS (RFC 6891), which all resolvers use"
    return None if outcome.has_edns else "answers without EDNS (RFC 6891) to a query with EDNS"


def _case_fault(outcome: QueryResult, apex: Name) -> str | None:
    if isinstance(outcome, Failure):
        return f"{outcome.value} when a query has upper and lower case letters, which CAs use"
    if outcome.qname.labels != mix_case(to_dnspython(apex)).labels:
        return "changes the letter case of the query, so CAs reject the reply as forged"
    return None


def _mixed_text(apex: Name) -> str:
    return mix_case(to_dnspython(apex)).to_text(omit_final_dot=True)


async def _judge_serials(asker: Asker, apex: Name, servers: Sequence[Server], stored: int | None) -> list[Finding]:
    """Each nameserver must reach the newest serial that is known now, even if later ones follow meanwhile."""
    serials = await _serials(asker, apex, servers)
    newest = latest([*serials.values(), *([stored % SERIAL_MODULUS] if stored is not None else [])])

    async def look() -> list[Server]:
        stale = [server for server, serial in serials.items() if is_older(serial, newest)]
        serials.update(await _serials(asker, apex, stale))
        return [server for server in stale if is_older(serials[server], newest)]

    behind = await wait_for_none(look, FOLLOW_PATIENCE)
    if not behind:
        return [tick(CheckName.SERIAL, f"every nameserver has serial {newest}")] if serials else []
    return [
        cross(
            CheckName.SERIAL,
            f"{server} is stale: it serves serial {serials[server]}, but the newest is {newest}",
            "make sure that the service there uses the same database as this command, and see its log:",
            "responder config check | grep database.url",
            "journalctl --unit responder --since -1h",
        )
        for server in behind
    ]


async def _serials(asker: Asker, apex: Name, servers: Sequence[Server]) -> dict[Server, int]:
    """The serials of the servers that reply."""
    outcomes = await asyncio.gather(*(asker.ask(server, apex, "SOA") for server in servers))
    return {
        server: soa.serial
        for server, outcome in zip(servers, outcomes, strict=True)
        if isinstance(outcome, Reply)
        for soa in outcome.answer_records(apex, SOA)
    }


def latest(serials: Sequence[int]) -> int:
    """The newest of these; 0 if there are none."""
    newest = serials[0] if serials else 0
    for serial in serials:
        if is_older(newest, serial):
            newest = serial
    return newest


def is_older(serial: int, than: int) -> bool:
    """Whether a serial comes before another (RFC 1982, section 3.2)."""
    return serial != than and (than - serial) % SERIAL_MODULUS < SERIAL_MODULUS // 2
