"""Messages octet by octet: header manners, malformed packets, EDNS, truncation."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.dns.exchange import Exchange
from responder.dns.rrset import RRset, RRType, txt_rdata
from responder.dns.wire import TCP_CEILING, UDP_CEILING, Query, Rcode, Transport, compile_answer, option, parse, render
from responder.names import Name
from tests.support.zones import CLIENT, ask, zones

NAME = b"\x04AcMe\x07eXample\x03COM\0"
SOA_IN = b"\0\x06\0\x01"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def packet(
    body: bytes = NAME + SOA_IN, *, flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)
) -> bytes:
    """A message with id 0x1234."""
    return struct.pack("!HHHHHH", 0x1234, flags, *counts) + body


def opt(options: bytes = b"", *, size: int = 1232, version: int = 0, flags: int = 0, owner: bytes = b"\0") -> bytes:
    """An OPT record."""
    return owner + struct.pack("!HHBBHH", 41, size, 0, version, flags, len(options)) + options


def reply_to(message: bytes, transport: Transport = Transport.UDP) -> bytes:
    reply = Exchange(zones()).respond(message, transport, CLIENT)
    assert reply is not None
    return reply


def head(reply: bytes) -> str:
    """The header without the id, in hex."""
    return reply[2:12].hex(" ", 2)


@pytest.mark.parametrize("message", [b"", b"\x12\x34", packet()[:11], packet(flags=0x8000), packet(flags=0x8005)])
def test_silence(message: bytes) -> None:
    """What has no header, or is a response itself, gets no answer: two servers must never talk for ever."""
    assert Exchange(zones()).respond(message, Transport.UDP, CLIENT) is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (packet(b"", counts=(0, 0, 0, 0)), "8101 0000 0000 0000 0000"),
        (packet(OPT, counts=(0, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(OPT[:-3], counts=(0, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + NAME + SOA_IN, counts=(2, 0, 0, 0)), "8101 0000 0000 0000 0000"),
        (packet(NAME[:-2]), "8101 0000 0000 0000 0000"),
        (packet(NAME + b"\0\x06\0"), "8101 0000 0000 0000 0000"),
        (packet(b"\xc0\x0c" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet(b"\x01a\xc0\x0c" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet(b"\x40a\0" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet(b"\x80a\0" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet((b"\x3f" + b"a" * 63) * 4 + b"\0" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + OPT, counts=(1, 1, 0, 0)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + OPT, counts=(1, 0, 1, 0)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + OPT + OPT, counts=(1, 0, 0, 2)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + opt(owner=NAME), counts=(1, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + OPT[:-3], counts=(1, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + OPT[:-1] + b"\x05", counts=(1, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + opt(b"\0\x03\0\x05a"), counts=(1, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + opt(b"\0\x03\0"), counts=(1, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + b"\0\0\x01\0\x01\0\0\0\0\0\0", counts=(1, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(b"", flags=0x2800, counts=(0, 0, 0, 0)), "a801 0000 0000 0000 0000"),
        (packet(b"", flags=0x0901, counts=(0, 0, 0, 0)), "8804 0000 0000 0000 0000"),
        (packet(flags=0x1000), "9004 0000 0000 0000 0000"),
        (packet(flags=0x2800), "a804 0000 0000 0000 0000"),
        (packet(flags=0x7FFF), "f804 0000 0000 0000 0000"),
    ],
)
def test_header_only(message: bytes, expected: str) -> None:
    """A faulty message gets FORMERR, an unknown opcode NOTIMP: twelve octets, as NSD and BIND answer."""
    assert expected == head(reply_to(message))
    assert message[:2] == reply_to(message)[:2]
    assert 12 == len(reply_to(message))


def test_question_is_echoed() -> None:
    """The question comes back octet by octet, letter case included; owners point into it (0x20)."""
    reply = reply_to(packet())

    assert NAME + SOA_IN == reply[12 : 12 + len(NAME) + 4]
    assert b"\xc0\x0c\0\x06" == reply[12 + len(NAME) + 4 :][:4]


@pytest.mark.parametrize("flags", [0x0000, 0x0010, 0x0020, 0x0040, 0x0080, 0x0200, 0x0400, 0x000F, 0x06FF])
def test_bits_of_the_query_are_not_copied(flags: int) -> None:
    """Only RD is copied; AA is ours; RA, Z, AD, CD, TC and rcode of a query mean nothing (RFC 4035, 3.1.6)."""
    assert "8400 0001 0001 0000 0000" == head(reply_to(packet(flags=flags)))
    assert "8500 0001 0001 0000 0000" == head(reply_to(packet(flags=flags | 0x0100)))


@pytest.mark.parametrize(("name", "expected"), [(NAME, "a005 0000"), (b"\x03org\0", "a009 0000")])
def test_notify_is_refused(name: bytes, expected: str) -> None:
    """Nobody has news for a primary: REFUSED for our zone, NOTAUTH for others."""
    assert expected == head(reply_to(packet(name + SOA_IN, flags=0x2400)))[:9]


@pytest.mark.parametrize(
    ("rrtype", "rclass", "rcode"),
    [
        (252, 1, Rcode.REFUSED),
        (251, 1, Rcode.REFUSED),
        (41, 1, Rcode.FORMERR),
        (128, 1, Rcode.FORMERR),
        (249, 1, Rcode.FORMERR),
        (250, 1, Rcode.FORMERR),
        (253, 1, Rcode.NOTIMP),
        (254, 1, Rcode.NOTIMP),
        (6, 3, Rcode.REFUSED),
        (6, 4, Rcode.REFUSED),
        (6, 254, Rcode.REFUSED),
        (6, 255, Rcode.REFUSED),
        (6, 0, Rcode.REFUSED),
    ],
)
def test_types_and_classes_that_are_no_questions(rrtype: int, rclass: int, rcode: Rcode) -> None:
    """Transfers and classes other than IN are refused, types that are never data are malformed questions."""
    reply = reply_to(packet(NAME + struct.pack("!HH", rrtype, rclass)))

    assert f"81{rcode:02x} 0001 0000 0000 0000" == head(reply)


@pytest.mark.parametrize("owner", [NAME, b"\xc0\x0c"])
def test_ixfr_may_carry_its_soa(owner: bytes) -> None:
    """An IXFR question has a SOA in its authority section, and is refused, not malformed, its OPT answered."""
    soa = owner + SOA_IN + b"\0\0\0\0\0\x03abc"
    plain = packet(NAME + b"\0\xfb\0\x01" + soa, counts=(1, 0, 1, 0))
    with_opt = packet(NAME + b"\0\xfb\0\x01" + soa + OPT, counts=(1, 0, 1, 1))

    assert "8105 0001 0000 0000 0000" == head(reply_to(plain))
    assert "8105 0001 0000 0000 0001" == head(reply_to(with_opt))


@pytest.mark.parametrize("soa", [NAME + SOA_IN + b"\0\0", NAME[:4], b"\x40" + SOA_IN + b"\0" * 6, b"\xc0"])
def test_ixfr_with_half_a_record(soa: bytes) -> None:
    """A SOA that is cut off leaves no OPT to find behind it."""
    assert "8101 0000 0000 0000 0000" == head(reply_to(packet(NAME + b"\0\xfb\0\x01" + soa, counts=(1, 0, 1, 1))))


def test_options_are_bounded() -> None:
    """Sixty-four options are read, more are malformed: a message could hold thousands."""
    few, many = (opt(b"\xff\x01\0\0" * count) for count in (64, 65))

    assert "8500 0001 0001 0000 0001" == head(reply_to(packet(NAME + SOA_IN + few, counts=(1, 0, 0, 1))))
    assert "8101 0000 0000 0000 0000" == head(reply_to(packet(NAME + SOA_IN + many, counts=(1, 0, 0, 1))))


def test_every_type_has_an_answer() -> None:
    """All 65,536 types get a well-formed answer with a known rcode."""
    served = Exchange(zones())
    rcodes = set()
    for rrtype in range(65_536):
        reply = served.respond(packet(NAME + struct.pack("!HH", rrtype, 1)), Transport.UDP, CLIENT)
        assert reply is not None
        rcodes.add(reply[3] & 0xF)

    assert {Rcode.NOERROR, Rcode.FORMERR, Rcode.NOTIMP, Rcode.REFUSED} == rcodes


def test_no_opt_without_opt() -> None:
    """A reply has an OPT if and only if its query had one, refusals included (RFC 6891, section 7)."""
    for name in ("acme.example.com", "nope.acme.example.com", "example.org"):
        assert -1 == ask(zones(), name, "SOA").edns
        reply = ask(zones(), name, "SOA", edns=0)
        assert (0, UDP_CEILING) == (reply.edns, reply.payload)


def test_badvers() -> None:
    """An EDNS version unknown to us gets BADVERS, split over header and OPT, and our version (RFC 6891, 6.1.3)."""
    reply = reply_to(packet(NAME + SOA_IN + opt(b"\0\x0a\0\x63", version=1), counts=(1, 0, 0, 1)))

    assert "8100 0001 0000 0000 0001" == head(reply)
    assert b"\0\0\x29\x04\xd0\x01\0\0\0\0\0" == reply[-11:]
    assert 45 - 22 + len(NAME) + 4 - 4 + 4 == len(reply)


def test_flags_and_options_unknown_to_us() -> None:
    """DO is copied, other EDNS flags are cleared, unknown options are ignored and not echoed (RFC 6891, 6.1.2)."""
    unknown = b"".join(option(65001 + n, b"x" * n) for n in range(20))
    reply = reply_to(packet(NAME + SOA_IN + opt(unknown, flags=0xFFFF), counts=(1, 0, 0, 1)))

    assert b"\0\0\x29\x04\xd0\0\0\x80\0\0\0" == reply[-11:]


@pytest.mark.parametrize(
    ("name", "rrtype", "code"),
    [("example.org", "A", 20), ("acme.example.com", "AXFR", 18), ("acme.example.com", "TYPE128", 30)],
)
def test_extended_errors(name: str, rrtype: str, code: int) -> None:
    """A refusal says why, without text (RFC 8914)."""
    (why,) = ask(zones(), name, rrtype, edns=0).options

    assert isinstance(why, dns.edns.EDEOption)
    assert (code, None) == (why.code, why.text)


@pytest.mark.parametrize(
    ("size", "octets", "truncated"),
    [(None, 512, True), (0, 512, True), (512, 512, True), (1232, 1232, True), (65535, 1232, True)],
)
def test_truncation(size: int | None, octets: int, truncated: bool) -> None:  # noqa: FBT001
    """Over UDP a reply never exceeds what the client takes, or 1232 octets; cut, it keeps question, AA and OPT."""
    query = dns.message.make_query("big.acme.example.com", "TXT", use_edns=-1 if size is None else 0, payload=size or 0)
    query.flags &= ~dns.flags.RD
    reply = reply_to(query.to_wire())

    assert len(reply) <= octets
    assert truncated == bool(reply[2] & 0x02)
    assert f"8600 0001 0000 0000 000{int(size is not None)}" == head(reply)
    assert query.is_response(dns.message.from_wire(reply))


@pytest.mark.parametrize("size", [512, 4096])
def test_tcp_is_not_truncated(size: int) -> None:
    """Over TCP the EDNS size does not matter (RFC 7766)."""
    query = dns.message.make_query("big.acme.example.com", "TXT", use_edns=0, payload=size)
    reply = dns.message.from_wire(reply_to(query.to_wire(), Transport.TCP))

    assert not reply.flags & dns.flags.TC
    assert 1500 == sum(len(s) for rdata in reply.answer[0] for s in rdata.strings)


def test_sizes_between() -> None:
    """A reply that fits the client's size is not cut, one octet less cuts it."""
    query = dns.message.make_query("acme.example.com", "NS", use_edns=0, payload=1232)
    parsed = parse(query.to_wire())
    assert isinstance(parsed, Query)
    texts = RRset(Name.parse("acme.example.com"), RRType.TXT, 1, tuple(txt_rdata("x" * 255) for _ in range(4)))
    room = UDP_CEILING - len(render(parsed, compile_answer(parsed.qname, 0, answer=(texts,)), Transport.UDP)) - 12
    exact = RRset(texts.owner, texts.type, 1, (*texts.rdatas, txt_rdata("y" * (room - 1))))
    over = RRset(texts.owner, texts.type, 1, (*texts.rdatas, txt_rdata("y" * room)))

    assert UDP_CEILING == len(render(parsed, compile_answer(parsed.qname, 0, answer=(exact,)), Transport.UDP))
    assert len(render(parsed, compile_answer(parsed.qname, 0, answer=(over,)), Transport.UDP)) < 100


def test_tcp_has_a_ceiling_too() -> None:
    """What even TCP cannot carry is cut, instead of breaking the length prefix."""
    parsed = parse(packet())
    assert isinstance(parsed, Query)
    huge = RRset(Name.parse("acme.example.com"), RRType.TXT, 1, tuple(txt_rdata("x" * 255) for _ in range(300)))

    assert len(render(parsed, compile_answer(parsed.qname, 0, answer=(huge,)), Transport.TCP)) < TCP_CEILING


def test_compression_respects_labels() -> None:
    """A suffix that only looks like the question's name is not compressed against the middle of a label."""
    owner = Name.parse("a.x")
    question = b"\x05b\x01a\x01x\x00"[:5] + b"z\0"  # one label whose octets contain "\x01a\x01x"
    answer = compile_answer(question, 0, answer=(RRset(owner, RRType.A, 1, (b"\x7f\0\0\1",)),))

    assert answer.body.startswith(owner.wire)


def record(owner: bytes, rrtype: int, rclass: int = 1, rdata: bytes = b"") -> bytes:
    return owner + struct.pack("!HHIH", rrtype, rclass, 0, len(rdata)) + rdata


TSIG = record(b"\x03key\0", 250, 255, b"rdata")


@pytest.mark.parametrize("flags", [0x0000, 0x2800])
@pytest.mark.parametrize(
    ("counts", "records", "found"),
    [
        ((1, 0, 0, 1), [TSIG], True),
        ((1, 0, 0, 2), [OPT, TSIG], True),
        ((1, 0, 0, 1), [TSIG, b"trailer"], True),
        ((1, 0, 0, 0), [TSIG], False),
        ((1, 0, 0, 1), [OPT, TSIG], False),
        ((1, 0, 0, 2), [TSIG, OPT], False),
        ((1, 0, 0, 1), [TSIG[:-1]], False),
        ((1, 0, 0, 1), [record(b"\xc0\x0c", 250, 255)], False),
        ((1, 0, 0, 1), [record(b"\x03key\0", 250, 1)], False),
        ((1, 0, 0, 1), [b"\x40" * 40], False),
        ((1, 0, 0, 65_535), [TSIG], False),
    ],
)
def test_where_the_signature_is(
    flags: int,
    counts: tuple[int, int, int, int],
    records: list[bytes],
    found: bool,  # noqa: FBT001
) -> None:
    """A TSIG is one if it is the last record, of class ANY, its name written out; what comes before is not read."""
    body = NAME + SOA_IN + b"".join(records)
    parsed = parse(packet(body, flags=flags, counts=counts))

    if found:
        assert isinstance(parsed, Query)
        assert 12 + body.index(TSIG) == parsed.tsig
    else:
        assert not isinstance(parsed, Query) or parsed.tsig == 0


@pytest.mark.parametrize(
    "owner", [b"\xc0\x0c", b"\x04some\xc0\x0c", b"\x04some\0", b"\0", b"\xff\xff"], ids=lambda owner: owner.hex()
)
def test_signature_behind_compressed_records(owner: bytes) -> None:
    """Names of the records in front may be compressed in any way."""
    records = record(owner, 255, 255) + record(owner, 16, 254) + record(owner, 16, 1, b"\x01a") + record(owner, 1)
    body = NAME + SOA_IN + records + TSIG

    parsed = parse(packet(body, flags=0x2800, counts=(1, 1, 2, 2)))

    assert isinstance(parsed, Query)
    assert 12 + body.index(TSIG) == parsed.tsig


def test_no_signature_in_long_messages() -> None:
    """In a message that is longer than any update is, none is looked for."""
    text = record(b"\0", 16, 1, b"x" * 255)
    body = NAME + SOA_IN + text * 16 + TSIG

    parsed = parse(packet(body, flags=0x2800, counts=(1, 0, 16, 1)))

    assert isinstance(parsed, Query)
    assert 0 == parsed.tsig


@given(st.integers(0, 254), st.booleans())
def test_long_names(padding: int, mixed: bool) -> None:  # noqa: FBT001
    """Names of every length up to 255 octets in the zone are answered, never dropped."""
    labels, left = [], min(padding, 255 - len(NAME) - 1)
    while left > 1:
        labels.append(b"\xffA"[mixed : mixed + 1] * min(63, left - 1))
        left -= len(labels[-1]) + 1
    name = b"".join(bytes((len(label),)) + label for label in labels) + NAME
    reply = reply_to(packet(name + SOA_IN))

    assert reply[3] & 0xF in (Rcode.NOERROR, Rcode.NXDOMAIN)
    assert name == reply[12 : 12 + len(name)]
