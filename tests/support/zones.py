"""The zone that tests of the core ask about, written as zone text, and the words to ask and read it with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace

import dns.exception
import dns.message
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from responder.dns.exchange import Elsewhere, Exchange
from responder.dns.rrset import RRset, RRType
from responder.dns.wire import Transport
from responder.dns.zone import Change, Static, Zones
from responder.dns.zonetext import parse_records, soa_rdata
from responder.errors import InvalidZone
from responder.names import Name

APEX = Name.parse("acme.example.com")
VALUE = "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"
OTHER = "2cz0TfnF9OOczTY5Tic_xZ6HcMOc_gmtoMLHDhK3oGR"
SERIAL = 7
CLIENT = "192.0.2.7"

SOA = "acme.example.com. 5 IN SOA ns1.acme.example.com. hostmaster.example.com. 7 14400 3600 1209600 5"
NS = "acme.example.com. 3600 IN NS ns1.acme.example.com."
GLUE = "ns1.acme.example.com. 3600 IN A 192.0.2.1"
RECORDS = """
ns1 3600 IN A 192.0.2.1
ns1 3600 IN AAAA 2001:db8::1
www 60 IN CNAME ns1
away 60 IN CNAME www.example.org.
loop 60 IN CNAME pool
pool 60 IN CNAME loop
lost 60 IN CNAME nowhere
bare 60 IN CNAME leaf.ent
home 60 IN CNAME @
leaf.ent 60 IN TXT "leaf"
big 60 IN TXT "{a}" "{b}" "{c}" "{a}" "{b}" "{c}"
""".format(a="a" * 250, b="b" * 250, c="c" * 250)


def static() -> Static:
    """The zone's static part."""
    ns1, mailbox = Name.parse("ns1.acme.example.com"), Name.parse("hostmaster.example.com")
    soa = RRset(APEX, RRType.SOA, 5, (soa_rdata(ns1, mailbox, 0, 14400, 3600, 1209600, 5),))
    nameservers = RRset(APEX, RRType.NS, 3600, (ns1.wire,))
    return Static(apex=APEX, rrsets=(soa, nameservers, *parse_records(RECORDS, APEX, default_ttl=3600)), txt_ttl=1)


def static_with_types(types: Iterable[int]) -> Static:
    """The same with a record at the name `every` of each of *types*, as far as zone text takes it there."""
    whole = static()
    records = [rrset for rrtype in types for rrset in _record(rrtype) if rrset.type != RRType.CNAME]
    return replace(whole, rrsets=(*whole.rrsets, *records))


def _record(rrtype: int) -> tuple[RRset, ...]:
    """A record of that type; its data is what dnspython takes for it, too."""
    known = dns.rdatatype.RdataType.make(rrtype)
    for rdata in _RDATAS:
        with contextlib.suppress(InvalidZone, dns.exception.DNSException, ValueError):
            if not dns.rdatatype.to_text(known).startswith("TYPE"):
                dns.rdata.from_wire(dns.rdataclass.IN, known, rdata, 0, len(rdata))
            return parse_records(f"every TYPE{rrtype} \\# {len(rdata)} {rdata.hex()}", APEX, default_ttl=60)
    return ()


_RDATAS = (
    b"\0\0\3abc\0",
    b"\0",
    b"\0\1\0\0",
    b"\3abc\0\0",
    b"\0\5issueabc",
    b"\3abc\3abc",
    bytes.fromhex("0012 1613 89172dd0 70be15f0 00988d20"),  # LOC
    bytes(8),
    bytes(2),
    b"\0011\0011\0011",
    bytes(4) + b"\1\1" + bytes(48),
)
"""Data of every form that a type has: for each type one of them will do."""


def challenge(label: str) -> Name:
    """The challenge name of the hostname `label.example.com`."""
    return Name.parse(f"_acme-challenge.{label}.acme.example.com")


def zones(names: dict[Name, tuple[str, ...] | None] | None = None, served: Static | None = None) -> Zones:
    """The zone with some granted names: by default `two` holds two values, `none` none, `a.deep` one."""
    if names is None:
        names = {challenge("two"): (VALUE, OTHER), challenge("none"): (), challenge("a.deep"): (VALUE,)}
    all_zones = Zones([served or static()])
    all_zones.apply(Change(apex=APEX, previous=0, serial=SERIAL, names=names))
    return all_zones


def made(reply: bytes | Elsewhere | None) -> bytes:
    """The *reply*, which the nameserver made itself: it is neither silence nor left to the control process."""
    assert isinstance(reply, bytes)
    return reply


def ask(
    served: Zones, name: str, rrtype: str, *, transport: Transport = Transport.UDP, edns: int = -1
) -> dns.message.Message:
    """Ask as a client would, and read the reply with somebody else's parser."""
    query = dns.message.make_query(name, rrtype, use_edns=edns)
    message = dns.message.from_wire(made(Exchange(served).respond(query.to_wire(), transport, CLIENT)))
    assert query.is_response(message)
    return message


def text(rrsets: list[dns.rrset.RRset]) -> list[str]:
    """A section as sorted lines of zone text."""
    return sorted(line for rrset in rrsets for line in rrset.to_text().splitlines())
