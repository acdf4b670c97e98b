"""
The nameservers of a zone as the configuration has them: the records that they make, and what can be wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from responder.addresses import Address
from responder.config.fields import is_host, without_url
from responder.dns.rrset import MAX_RRSET, RRset, RRType
from responder.names import Name


def nameserver_rrsets(apex: Name, nameservers: Mapping[Name, tuple[Address, ...]], ttl: int) -> Iterator[RRset]:
    """The records from the nameservers of a zone: NS records, then addresses."""
    yield RRset(apex, RRType.NS, ttl, tuple(name.wire for name in nameservers))
    for name, addresses in nameservers.items():
        for version, rrtype in ((4, RRType.A), (6, RRType.AAAA)):
            rdatas = dict.fromkeys(address.packed for address in addresses if address.version == version)
            if rdatas:
                yield RRset(name, rrtype, ttl, tuple(rdatas))


def nameserver_faults(nameservers: Mapping[Name, tuple[Address, ...]], apex: Name) -> Iterator[str]:
    if not nameservers:
        yield f'there is no nameserver: write "ns1.{apex}" = ["ITS PUBLIC ADDRESS"]'
    for name, addresses in nameservers.items():
        if fault := _host_fault(name, apex):
            yield fault
            continue
        if name.is_within(apex) and not addresses:
            yield f'"{name}" is inside the zone and has no address: write "{name}" = ["ITS PUBLIC ADDRESS"]'
        if not name.is_within(apex) and addresses:
            yield f'"{name}" is outside the zone, so its addresses cannot be set here: write "{name}" = []'
    for rrset in nameserver_rrsets(apex, nameservers, ttl=0):
        if rrset.octets > MAX_RRSET:
            what = f'{len(rrset.rdatas)} {RRType(rrset.type).name} records of "{rrset.owner}"'
            yield f"no reply can hold the {what}: remove some of them"


def clashes(nameservers: Mapping[Name, tuple[Address, ...]], records: tuple[RRset, ...]) -> Iterator[str]:
    for owner, rrtype in ((rrset.owner, rrset.type) for rrset in records if rrset.owner in nameservers):
        if rrtype in (RRType.A, RRType.AAAA):
            name = RRType(rrtype).name
            yield f'"{owner}" gets its addresses from [zones.nameservers]: remove its {name} from records'
        if rrtype == RRType.CNAME:
            yield f'"{owner}" has a CNAME in records, but no nameserver may (RFC 2181, section 10.3): remove it'


def _host_fault(name: Name, apex: Name) -> str | None:
    """Why *name* cannot be the name of a nameserver, and what was probably meant; None if it can be one."""
    if is_host(name):
        return None
    text = b".".join(name.labels).decode(errors="replace")
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        pass
    else:
        return f'"{text}" is an address, and a nameserver needs a name: write "ns1.{apex}" = ["{address}"]'
    if text == "localhost":
        return f'"localhost" is another machine for everyone else: write "ns1.{apex}" = ["ITS PUBLIC ADDRESS"]'
    if is_host(meant := without_url(text)):
        return f'"{text}" is not the name of a host: write "{meant}"'
    if len(name.labels) == 1 and is_host(meant := name.under(apex)):
        return f'"{text}" has one label only, and names here are written whole: write "{meant}"'
    return f'"{text}" is not the name of a host, which has only letters, digits and hyphens: write it like "ns1.{apex}"'
