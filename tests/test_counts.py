"""What a nameserver counts of the packets it answers, and what the control process believes of it."""

from __future__ import annotations

import json

import dns.message
import pytest

from responder.counts import MAX_COUNTS, Count, parse_counts
from responder.exchange import Exchange
from responder.ratelimit import RateLimit
from responder.wire import Transport
from tests.zones import CLIENT, zones

APEX = "acme.example.com"
CHALLENGE = f"_acme-challenge.two.{APEX}"


def query(name: str, rdtype: str, **how: object) -> bytes:
    return dns.message.make_query(name, rdtype, **how).to_wire()  # type: ignore[arg-type]


def counted(exchange: Exchange) -> dict[tuple[str, ...], int]:
    return {(family, *labels): number for family, labels, number in exchange.take_counts() if number}


def test_what_is_counted() -> None:
    """Queries by type, replies by zone and rcode, messages by transport, on the quick way as on the long one."""
    exchange = Exchange(zones())
    exchange.take_counts()  # refusals are counted together for all of a process
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
        ("messages", "udp"): 8,
        ("messages", "tcp"): 2,
        ("events", "truncated"): 1,
        ("events", "ignored"): 1,
        ("events", "malformed"): 1,
    } == counted(exchange)
    assert {} == counted(exchange)


def test_limited_replies_are_counted() -> None:
    """Those cut, and those not sent at all."""
    exchange = Exchange(zones(), limit=RateLimit(per_second=1, slip=2, exempt=[], clock=lambda: 100.0))
    replies = [exchange.respond(query(CHALLENGE, "TXT"), Transport.UDP, CLIENT) for _ in range(40)]
    events = counted(exchange)
    sent = [reply for reply in replies if reply is not None]
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


@pytest.mark.parametrize(
    "counts",
    [
        None,
        {},
        [["queries", ["TXT"], 1]] * (MAX_COUNTS + 1),
        [["queries", ["MADE-UP"], 1]],
        [["replies", ["another.zone", "NOERROR"], 1]],
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
