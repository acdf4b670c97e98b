"""What a nameserver counts of the packets it answers, and what the control process believes of it."""

from __future__ import annotations

import json
import struct

import dns.message
import pytest

from responder.dns.cookies import Cookies
from responder.dns.counts import MAX_COUNTS, Count, parse_counts
from responder.dns.exchange import ELSEWHERE, Exchange
from responder.dns.identity import Identity
from responder.dns.ratelimit import RateLimit
from responder.dns.wire import Opcode, Rcode, Transport, header_only
from responder.dns.zone import Zones
from tests.support.zones import CLIENT, made, static_with_types, zones

APEX = "acme.example.com"
CHALLENGE = f"_acme-challenge.two.{APEX}"
TSIG = b"\x03key\0" + struct.pack("!HHIH", 250, 255, 0, 5) + b"rdata"


def query(name: str, rdtype: str, **how: object) -> bytes:
    return dns.message.make_query(name, rdtype, **how).to_wire()  # type: ignore[arg-type]


def message(opcode: Opcode, zone: str, rdtype: str = "SOA") -> bytes:
    """What an update or a NOTIFY begins with, and nothing else."""
    return b"\0\1" + bytes((opcode << 3,)) + query(zone, rdtype, use_edns=-1)[3:]


def cookie_request() -> bytes:
    """A query for nothing but a cookie (RFC 7873, section 5.4)."""
    return bytes(11) + b"\1\0\0\x29\4\xd0" + bytes(5) + b"\x0c\0\x0a\0\x08client c"


def counted(exchange: Exchange) -> dict[tuple[str, ...], int]:
    return {(family, *labels): number for family, labels, number in exchange.take_counts() if number}


def test_what_is_counted() -> None:
    """Queries by type, replies by zone and rcode, messages by transport, on the quick way as on the long one."""
    exchange = Exchange(zones())
    for _ in range(3):
        exchange.respond(query(CHALLENGE, "TXT"), Transport.UDP, CLIENT)
    exchange.respond(query(f"absent.{APEX}", "A"), Transport.TCP, CLIENT)
    exchange.respond(query(CHALLENGE, "TYPE65280"), Transport.UDP, CLIENT)
    exchange.respond(query(APEX, "ANY"), Transport.UDP, CLIENT)
    exchange.respond(query("elsewhere.example.org", "A"), Transport.TCP, CLIENT)
    exchange.respond(query(f"big.{APEX}", "TXT"), Transport.UDP, CLIENT)
    exchange.respond(b"\0\0\0\0rubbish", Transport.UDP, CLIENT)
    exchange.respond(b"\0" * 12, Transport.UDP, CLIENT)
    assert {
        ("queries", "TXT"): 4,
        ("queries", "A"): 2,
        ("queries", "ANY"): 1,
        ("queries", "other"): 1,
        ("replies", APEX, "NOERROR"): 6,
        ("replies", APEX, "NXDOMAIN"): 1,
        ("replies", "none", "REFUSED"): 1,
        ("replies", "none", "FORMERR"): 1,
        ("messages", "udp"): 8,
        ("messages", "tcp"): 2,
        ("events", "truncated"): 1,
        ("events", "ignored"): 1,
        ("events", "malformed"): 1,
    } == counted(exchange)
    assert {} == counted(exchange)


@pytest.mark.parametrize(
    ("packet", "rcode", "qtype"),
    [
        pytest.param(query("version.bind", "TXT", rdclass="CH"), "NOERROR", "TXT", id="CHAOS"),
        pytest.param(query("other.bind", "TXT", rdclass="CH"), "REFUSED", "TXT", id="CHAOS refused"),
        pytest.param(query(APEX, "SOA", rdclass="HS"), "REFUSED", "SOA", id="another class"),
        pytest.param(query(APEX, "AXFR"), "REFUSED", "AXFR", id="transfer"),
        pytest.param(query(APEX, "TKEY"), "FORMERR", "TKEY", id="no type of data"),
        pytest.param(query(APEX, "MAILA"), "NOTIMP", "MAILA", id="obsolete type"),
        pytest.param(query(APEX, "SOA", use_edns=1), "BADVERS", "SOA", id="another version of EDNS"),
        pytest.param(cookie_request(), "NOERROR", "other", id="cookie without a question"),
        pytest.param(message(Opcode.NOTIFY, APEX), "REFUSED", None, id="NOTIFY"),
        pytest.param(message(Opcode.NOTIFY, "example.org"), "NOTAUTH", None, id="NOTIFY of another zone"),
        pytest.param(message(Opcode.UPDATE, APEX), "REFUSED", None, id="update without signature"),
        pytest.param(message(Opcode.UPDATE, "example.org"), "NOTAUTH", None, id="update of another zone"),
        pytest.param(message(Opcode.UPDATE, APEX, "A"), "FORMERR", None, id="update of no zone"),
        pytest.param(bytes(12), "FORMERR", None, id="no question"),
        pytest.param(b"\0\0\x10" + bytes(9), "NOTIMP", None, id="another opcode"),
    ],
)
def test_every_reply_is_counted(packet: bytes, rcode: str, qtype: str | None) -> None:
    """Whatever is replied by no zone is counted once, with its rcode; if it was a query, that is, too."""
    identity, cookies = Identity(version="9"), Cookies((b"k" * 16,), lambda: 1000)
    exchange = Exchange(zones(), identity=identity, cookies=cookies, updates=True)

    assert exchange.respond(packet, Transport.UDP, CLIENT)

    counts = counted(exchange)
    assert {("replies", "none", rcode): 1} == {key: counts[key] for key in counts if key[0] == "replies"}
    assert ({("queries", qtype): 1} if qtype else {}) == {key: counts[key] for key in counts if key[0] == "queries"}


@pytest.mark.parametrize(
    ("signed", "rcode", "counts"),
    [
        (message(Opcode.UPDATE, APEX), Rcode.NOERROR, {("none", "NOERROR"): 1}),
        (message(Opcode.UPDATE, APEX), Rcode.NOTZONE, {("none", "NOTZONE"): 1}),
        (query(CHALLENGE, "TXT"), Rcode.NOERROR, {(APEX, "NOERROR"): 1}),
        (query(f"absent.{APEX}", "TXT"), Rcode.NXDOMAIN, {(APEX, "NXDOMAIN"): 1}),
        (query("example.org", "TXT"), Rcode.REFUSED, {("none", "REFUSED"): 1}),
        (query(APEX, "TXT", use_edns=1), Rcode.NOERROR, {("none", "BADVERS"): 1}),
        (query(CHALLENGE, "TXT"), Rcode.NOTAUTH, {("none", "NOTAUTH"): 1}),
        (query(CHALLENGE, "TXT"), Rcode.SERVFAIL, {("none", "SERVFAIL"): 1}),
    ],
)
def test_replies_made_elsewhere_are_counted(signed: bytes, rcode: Rcode, counts: dict[tuple[str, str], int]) -> None:
    """A reply to what is signed is counted once it is known, with the rcode that it has then."""
    exchange = Exchange(zones(), updates=True)
    packet = signed[:11] + bytes((signed[11] + 1,)) + signed[12:] + TSIG

    assert ELSEWHERE == exchange.respond(packet, Transport.UDP, CLIENT)
    draft = exchange.draft(packet, Transport.UDP, CLIENT)
    before = counted(exchange)
    exchange.count(header_only(packet, rcode), draft)

    assert not [key for key in before if key[0] == "replies"]
    assert counts == {key[1:]: number for key, number in counted(exchange).items() if key[0] == "replies"}


def test_every_type_there_is_can_be_counted() -> None:
    """
    A record may have any type that zone text takes. The queries for it are counted on both ways, the first by the half
    that compiles the answer, the others by the quick one; and the control process takes the counts.
    """
    served = static_with_types(range(1, 65_536))
    exchange = Exchange(Zones([served]))
    packet = query(f"every.{APEX}", "A", use_edns=-1)
    for rrtype in range(65_536):
        for _ in range(3):
            exchange.respond(packet[:-4] + struct.pack("!HH", rrtype, 1), Transport.UDP, CLIENT)

    counts = exchange.take_counts()

    assert len(served.rrsets) > 65_000
    assert 3 * 65_536 == sum(number for family, _, number in counts if family == "queries")
    assert counts == parse_counts(json.loads(json.dumps(counts)), {APEX})


def test_rcodes_without_a_name_are_counted() -> None:
    """A reply made elsewhere may have an rcode that this server has no name for."""
    exchange = Exchange(zones())
    for rcode in range(16):
        exchange.count(bytes((0, 0, 0x80, rcode)) + bytes(8))

    counts = exchange.take_counts()

    assert 16 == sum(number for family, _, number in counts if family == "replies")
    assert {"other"} < {labels[1] for family, labels, _ in counts if family == "replies"}
    assert counts == parse_counts(json.loads(json.dumps(counts)), {APEX})


def test_limited_replies_are_counted() -> None:
    """Those cut, and those not sent at all."""
    exchange = Exchange(zones(), limit=RateLimit(per_second=1, slip=2, exempt=[], clock=lambda: 100.0))
    replies = [exchange.respond(query(CHALLENGE, "TXT"), Transport.UDP, CLIENT) for _ in range(40)]
    events = counted(exchange)
    sent = [made(reply) for reply in replies if reply is not None]
    assert 40 == events["messages", "udp"]
    assert 40 - len(sent) == events["events", "dropped"]
    assert sum(reply[2] & 2 > 0 for reply in sent) == events["events", "cut"] > 0


def test_counts_survive_new_zones() -> None:
    """What was answered from zones that have since been replaced is not forgotten."""
    exchange = Exchange(zones())
    exchange.respond(query(CHALLENGE, "TXT"), Transport.UDP, CLIENT)
    exchange.serve(zones())
    exchange.respond(query(CHALLENGE, "TXT"), Transport.UDP, CLIENT)
    assert 2 == counted(exchange)["replies", APEX, "NOERROR"]


def test_counts_survive_the_journey() -> None:
    """What the nameserver counts is what the control process reads."""
    exchange = Exchange(zones())
    for rdtype in ("TXT", "A", "SOA", "TYPE65280"):
        exchange.respond(query(CHALLENGE, rdtype), Transport.UDP, CLIENT)
    exchange.respond(b"\0" * 12, Transport.TCP, CLIENT)
    counts: list[Count] = exchange.take_counts()
    assert counts == parse_counts(json.loads(json.dumps(counts)), {APEX})


def test_zones_that_are_no_longer_served() -> None:
    """What a nameserver counted for a zone of an earlier configuration is counted, without the name of the zone."""
    assert [("replies", ("none", "NOERROR"), 1)] == parse_counts([["replies", ["another.zone", "NOERROR"], 1]], {APEX})


@pytest.mark.parametrize(
    "counts",
    [
        None,
        {},
        [["queries", ["TXT"], 1]] * (MAX_COUNTS + 1),
        [["queries", ["MADE-UP"], 1]],
        [["replies", [APEX, "NOTHING"], 1]],
        [["messages", ["pigeon"], 1]],
        [["events", ["picnic"], 1]],
        [["inventions", [], 1]],
        [["queries", ["TXT"], -1]],
        [["queries", ["TXT"], 2**60]],
        [["queries", ["TXT"], 1.5]],
        [["queries", "TXT", 1]],
        ["queries"],
    ],
)
def test_what_cannot_be_counts(counts: object) -> None:
    """A nameserver that was taken over makes up no labels and no numbers."""
    with pytest.raises(ValueError, match="not"):
        parse_counts(counts, {APEX})
