"""`respond` as a whole: its fast half agrees with the half that defines it, and hostile bytes bring out nothing else."""

from __future__ import annotations

import struct

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from responder import exchange
from responder.exchange import Exchange
from responder.wire import Opcode, Query, Transport, parse
from tests.zones import CLIENT, zones

SERVED = Exchange(zones())
KNOWN = list(SERVED.zones.nodes)


def scramble(wire: bytes, cases: list[bool]) -> bytes:
    """*wire* with some letters in upper case: a length octet is never a letter."""
    return bytes(octet - 32 if up and 97 <= octet <= 122 else octet for octet, up in zip(wire, cases, strict=False))


QNAMES = st.one_of(
    st.builds(scramble, st.sampled_from(KNOWN), st.lists(st.booleans(), min_size=255, max_size=255)),
    st.builds(
        lambda label, wire: bytes((len(label),)) + label + wire,
        st.binary(min_size=1, max_size=9),
        st.sampled_from(KNOWN),
    ),
    st.binary(max_size=40),
)
OPTS = st.one_of(
    st.just(b""),
    st.builds(
        lambda size, version, flags, options: (
            b"\0" + struct.pack("!HHBBHH", 41, size, 0, version, flags, len(options)) + options
        ),
        st.integers(0, 65535),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([0, 0x8000, 0xFFFF]),
        st.sampled_from([b"", b"", b"\0\x03\0\0", b"\0\x0a\0\x08abcdefgh", b"\0\x03\0\x09"]),
    ),
    st.binary(max_size=20),
)
PACKETS = st.one_of(
    st.builds(
        lambda flags, name, rrtype, rclass, opt, arcount: (
            struct.pack("!HHHHHH", 7, flags, 1, 0, 0, arcount if arcount is not None else bool(opt))
            + name
            + struct.pack("!HH", rrtype, rclass)
            + opt
        ),
        st.sampled_from([0, 0x0100, 0x0120, 0x0110, 0x0130, 0x2400, 0x2800, 0x8000]),
        QNAMES,
        st.sampled_from([1, 2, 5, 6, 15, 16, 28, 41, 43, 48, 65, 97, 251, 252, 255, 257]),
        st.sampled_from([1, 1, 1, 3, 255]),
        OPTS,
        st.sampled_from([None, None, None, 0, 1, 2]),
    ),
    st.binary(max_size=80),
)


def slowly(packet: bytes, transport: Transport) -> bytes | None:
    """The reply of the defining half alone: no header is taken for an ordinary one."""
    heads, exchange._HEADS = exchange._HEADS, {}
    try:
        return SERVED.respond(packet, transport, CLIENT)
    finally:
        exchange._HEADS = heads


@settings(max_examples=2000, deadline=None)
@given(PACKETS, st.sampled_from(Transport))
def test_fast_half_agrees(packet: bytes, transport: Transport) -> None:
    """Whatever comes, both halves answer alike, whether or not the OPT was seen before."""
    expected = slowly(packet, transport)

    assert expected == SERVED.respond(packet, transport, CLIENT)
    assert expected == SERVED.respond(packet, transport, CLIENT)


@settings(max_examples=2000, deadline=None)
@given(PACKETS, st.sampled_from(Transport))
def test_silence_or_a_reply_to_this_question(packet: bytes, transport: Transport) -> None:
    """The only outcomes: silence, twelve octets of refusal, or a well-formed reply that echoes this very question."""
    reply = SERVED.respond(packet, transport, CLIENT)

    if reply is None:
        assert len(packet) < 12 or packet[2] & 0x80
        return
    assert packet[:2] == reply[:2]
    assert reply[2] & 0x80
    assert reply[3] & 0xF0 == 0
    parsed = parse(packet)
    if not isinstance(parsed, Query) or parsed.opcode != Opcode.QUERY:
        assert 12 == len(reply)
        return
    assert parsed.question == reply[12 : 12 + len(parsed.question)]
    dns.message.from_wire(reply)
    assert len(reply) <= (parsed.edns.limit if transport is Transport.UDP else 65535)


def test_a_zero_inside_a_label_is_not_the_end_of_a_name() -> None:
    """The fast half looks for the first zero octet; a name with one inside a label must not be taken for another."""
    name = b"\x05ac\0me\x04acme\x07example\x03com\0"
    packet = struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 0) + name + b"\0\x10\0\x01"

    reply = SERVED.respond(packet, Transport.UDP, CLIENT)

    assert reply is not None
    assert 3 == reply[3] & 0xF
    assert name == reply[12 : 12 + len(name)]


def test_remembered_opts_are_bounded() -> None:
    """However many different OPT records come, few are remembered."""
    question = b"\x04acme\x07example\x03com\0\0\x06\0\x01"
    for size in range(3 * exchange.MAX_REMEMBERED_OPTS):
        opt = b"\0" + struct.pack("!HHIH", 41, size, 0, 0)
        SERVED.respond(struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 1) + question + opt, Transport.UDP, CLIENT)

    assert len(SERVED._opts) <= exchange.MAX_REMEMBERED_OPTS


@pytest.mark.parametrize("length", [1, 50, 200])
def test_garbage_of_every_kind_is_survived(length: int) -> None:
    """A header of every opcode with every count in front of junk: never an exception."""
    for flags in range(0, 0x8000, 0x0100):
        for counts in ((0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1), (65535,) * 4):
            SERVED.respond(struct.pack("!HHHHHH", 7, flags, *counts) + b"\x01a" * length, Transport.UDP, CLIENT)
