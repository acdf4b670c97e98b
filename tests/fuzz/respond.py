"""
The fuzz target: octets in, and either all is well or an `AssertionError`.

The first octet chooses the transport and the client's kind of address, the others are a packet. The oracle shares no
code with what it judges: it reads replies with dnspython and by itself.
"""

from __future__ import annotations

import contextlib
import json

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode

from responder.dns.cookies import Cookies
from responder.dns.counts import parse_counts
from responder.dns.exchange import ELSEWHERE, SIGNATURE, Elsewhere, Exchange
from responder.dns.identity import Identity
from responder.dns.ratelimit import RateLimit
from responder.dns.wire import Transport
from responder.names import Name
from tests.support.zones import APEX, OTHER, VALUE, challenge, static_with_types, zones

IDENTITY = Identity(nsid="ns1", version="1", hostname="ns1.example.net")
COOKIES = Cookies((b"k" * 16, b"old-key-old-key-"), lambda: 1000)
MANY = challenge("many")
NAMES: dict[Name, tuple[str, ...] | None] = {
    challenge("two"): (VALUE, OTHER),
    challenge("none"): (),
    MANY: tuple(chr(97 + n) * 43 for n in range(16)),
}
STATIC = static_with_types([*range(1, 300), 32_768, 32_769, 65_280, 65_535])
"""Has a record of every type that is registered, and of some that are not."""

ZONES = zones(NAMES, STATIC)
CLIENTS = ("192.0.2.7", "2001:db8::7")

LASTING = Exchange(ZONES, identity=IDENTITY, cookies=COOKIES, updates=True)
"""Remembers what all inputs so far left in it; must answer as one does that remembers nothing."""


def check(data: bytes) -> None:
    """Raises unless every answer to the packet in *data* is right: at first, again, remembered, limited."""
    if not data:
        return
    transport, client, packet = (Transport.TCP if data[0] & 1 else Transport.UDP), CLIENTS[data[0] >> 1 & 1], data[1:]
    fresh = Exchange(ZONES, identity=IDENTITY, cookies=COOKIES, updates=True)
    fresh.take_counts()  # what others have left in the zones
    reply = fresh.respond(packet, transport, client)

    expect_count(fresh, reply)
    if reply is ELSEWHERE:
        expect_draft(packet, fresh.draft(packet, transport, client).octets, transport)
    else:
        expect_silence_or_reply(packet, reply, transport)
    assert reply == fresh.respond(packet, transport, client)
    expect_count(fresh, None if reply is ELSEWHERE else reply)
    assert reply == LASTING.respond(packet, transport, client)
    expect_count(LASTING, reply)
    expect_any_case(packet, reply, fresh.respond(other_case(packet), transport, client))
    limit = RateLimit(per_second=1, slip=2, exempt=(), clock=lambda: 1.0)
    limited = Exchange(ZONES, identity=IDENTITY, cookies=COOKIES, limit=limit, updates=True)
    expect_limit(packet, reply, [limited.respond(packet, transport, client) for _ in range(3)], transport)


def expect_count(exchange: Exchange, reply: bytes | Elsewhere | None) -> None:
    """
    A reply is counted once, with its rcode; silence is not, nor what is answered elsewhere. The control process takes
    all that was counted.
    """
    counts = exchange.take_counts()
    assert counts == parse_counts(json.loads(json.dumps(counts)), {str(APEX)})
    replies = [(labels[1], number) for family, labels, number in counts if family == "replies"]
    if reply is None or reply is ELSEWHERE:
        assert not replies
    else:
        assert replies == [(dns.rcode.to_text(dns.message.from_wire(reply).rcode()), 1)]


def expect_draft(packet: bytes, draft: bytes, transport: Transport) -> None:
    """What is answered elsewhere has a TSIG; a query comes with a reply that leaves room for another, an update not."""
    assert b"\0\xfa\0\xff" in packet
    if packet[2] & 0x78:
        assert draft == b""
        return
    expect_silence_or_reply(packet, draft, transport)
    assert transport is Transport.TCP or len(draft) <= 1232 - SIGNATURE


def expect_silence_or_reply(packet: bytes, reply: bytes | None, transport: Transport) -> None:
    """Silence for responses and for less than a header; for anything else a well-formed reply to this very packet."""
    if reply is None:
        assert len(packet) < 12 or packet[2] & 0x80
        return
    assert len(packet) >= 12
    assert not packet[2] & 0x80
    assert packet[:2] == reply[:2]
    assert packet[2] & 0x78 == reply[2] & 0x78, "opcode"
    assert reply[2] & 0x80, "QR"
    assert not reply[3] & 0xF0, "RA, Z, AD, CD"
    message = dns.message.from_wire(reply)
    assert not (message.flags & dns.flags.AA) or message.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    end = 12
    if reply[4:6] != b"\0\0":
        while reply[end]:
            end += 1 + reply[end]
        end += 5
    assert packet[12:end] == reply[12:end], "the question, octet by octet"
    expect_match(packet, message)
    expect_size(packet, message, len(reply), transport)


def other_case(packet: bytes) -> bytes:
    """*packet* with every other letter behind its header in the other case, up to what may be the end of a name."""
    end = packet.find(0, 12)
    return bytes(
        octet ^ 32 if 12 < at < end and at % 2 and bytes((octet,)).isalpha() else octet
        for at, octet in enumerate(packet)
    )


def expect_any_case(packet: bytes, reply: bytes | Elsewhere | None, other: bytes | Elsewhere | None) -> None:
    """Letter case changes nothing but the echo of the question (RFC 4343)."""
    if not isinstance(reply, bytes) or not isinstance(other, bytes):
        assert reply is other
        return
    end = packet.find(0, 12)
    assert reply[:12] == other[:12]
    assert len(reply) == len(other)
    assert reply[12:].lower() == other[12:].lower()
    assert len(reply) == 12 or reply[end:] == other[end:]


def expect_match(packet: bytes, reply: dns.message.Message) -> None:
    """If dnspython reads *packet* as a query, it holds *reply* for one to it; an OPT answers an OPT."""
    query = read(packet)
    if query is None or query.opcode() != dns.opcode.QUERY or query.had_tsig:
        return
    assert query.is_response(reply)
    if reply.question:
        assert (query.edns < 0) == (reply.edns < 0)
        assert reply.edns <= 0


def expect_size(packet: bytes, reply: dns.message.Message, octets: int, transport: Transport) -> None:
    """Over UDP, what the client takes but at least 512 octets and at most 1,232; over TCP never cut here."""
    if transport is Transport.TCP:
        assert not reply.flags & dns.flags.TC
        return
    query = read(packet)
    payload = query.payload if query is not None and query.edns == 0 else 1232
    assert octets <= (min(max(payload, 512), 1232) if reply.edns >= 0 else 512)
    if reply.flags & dns.flags.TC:
        assert not reply.answer + reply.authority + reply.additional


def expect_limit(
    packet: bytes, reply: bytes | Elsewhere | None, replies: list[bytes | Elsewhere | None], transport: Transport
) -> None:
    """
    Of three replies over UDP the first is sent, the second cut, the third dropped; unless the client is verified. What
    is answered elsewhere is dropped at once: nothing there could be cut.
    """
    first, second, third = replies
    assert reply == first
    if reply is ELSEWHERE and transport is Transport.UDP and third is None:
        assert second is None
        return
    if reply is None or transport is Transport.TCP or third is not None:
        assert [reply] * 3 == replies
        return
    assert isinstance(reply, bytes)
    assert isinstance(second, bytes)
    assert second[2] & 0x02
    assert len(second) <= max(len(packet), len(reply))
    assert packet[:2] == second[:2]
    assert second[6:10] == b"\0\0\0\0"
    dns.message.from_wire(second)


def read(packet: bytes) -> dns.message.Message | None:
    """*packet* as dnspython reads it, if it does."""
    with contextlib.suppress(dns.exception.DNSException, ValueError):
        return dns.message.from_wire(packet, ignore_trailing=True)
    return None
