"""Messages octet by octet: header manners, malformed packets, EDNS, truncation."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.dns.cookies import Cookies
from responder.dns.exchange import Exchange
from responder.dns.rrset import RRset, RRType, txt_rdata
from responder.dns.wire import (
    HEADER,
    TCP_CEILING,
    UDP_CEILING,
    Query,
    Rcode,
    Transport,
    compile_answer,
    option,
    parse,
    refusal,
    render,
)
from responder.dns.wire.edns import MAX_OPTIONS
from responder.dns.zone import Static, Zones
from responder.dns.zonetext import parse_records
from responder.names import Name
from tests.support.zones import CLIENT, ask, made, static, zones

NAME = b"\x04AcMe\x07eXample\x03COM\0"
SOA_IN = b"\0\x06\0\x01"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
RECORD = b"\0\0\x01\0\x01\0\0\0\0\0\0"


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
    assert isinstance(reply, bytes)
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
        (packet(OPT[:-3], counts=(0, 0, 0, 1)), "8101 0000 0000 0000 0000"),
        (packet(NAME + SOA_IN + NAME + SOA_IN, counts=(2, 0, 0, 0)), "8101 0000 0000 0000 0000"),
        (packet(NAME[:-2]), "8101 0000 0000 0000 0000"),
        (packet(NAME + b"\0\x06\0"), "8101 0000 0000 0000 0000"),
        (packet(b"\xc0\x0c" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet(b"\x01a\xc0\x0c" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet(b"\x40a\0" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet(b"\x80a\0" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet((b"\x3f" + b"a" * 63) * 4 + b"\0" + SOA_IN), "8101 0000 0000 0000 0000"),
        (packet(b"", flags=0x2800, counts=(0, 0, 0, 0)), "a801 0000 0000 0000 0000"),
        (packet(b"", flags=0x0901, counts=(0, 0, 0, 0)), "8804 0000 0000 0000 0000"),
        (packet(flags=0x1000), "9004 0000 0000 0000 0000"),
        (packet(flags=0x7FFF), "f804 0000 0000 0000 0000"),
    ],
)
def test_header_only(message: bytes, expected: str) -> None:
    """What has not one good question gets FORMERR, an unknown opcode NOTIMP: twelve octets, as NSD and BIND answer."""
    assert expected == head(reply_to(message))
    assert message[:2] == reply_to(message)[:2]
    assert 12 == len(reply_to(message))


NO_RECORDS = "a query must have no answer or authority records"
ONE_RECORD = "only one OPT record and a signature may follow a query"
CUT_OPTION = "an EDNS option is cut short"
BAD_COOKIE = "a DNS cookie must have 8 or 16 to 40 octets"


@pytest.mark.parametrize(
    ("rest", "counts", "why"),
    [
        (opt(b"\0\x03\0\x05a"), (1, 0, 0, 1), CUT_OPTION),
        (opt(b"\0\x03\0"), (1, 0, 0, 1), CUT_OPTION),
        (opt(b"\xff\x01\0\0" * 70 + b"\0"), (1, 0, 0, 1), CUT_OPTION),
        (opt(b"\0\x0a\0\x07ABCDEFG", flags=0x8000), (1, 0, 0, 1), BAD_COOKIE),
        (opt(b"\0\x0a\0\x00"), (1, 0, 0, 1), BAD_COOKIE),
        (opt(b"\0\x0a\0\x09" + b"x" * 9), (1, 0, 0, 1), BAD_COOKIE),
        (opt(b"\0\x0a\0\x29" + b"x" * 41), (1, 0, 0, 1), BAD_COOKIE),
        (OPT[:-1] + b"\x05", (1, 0, 0, 1), "the OPT record is cut short"),
        (OPT + OPT, (1, 0, 0, 2), ONE_RECORD),
        (OPT + RECORD, (1, 0, 0, 2), ONE_RECORD),
        (RECORD + OPT, (1, 1, 0, 1), NO_RECORDS),
        (RECORD + OPT, (1, 0, 1, 1), NO_RECORDS),
        (RECORD + RECORD + OPT, (1, 1, 1, 1), NO_RECORDS),
        (RECORD * 300 + OPT, (1, 150, 150, 1), NO_RECORDS),
        (RECORD + OPT, (1, 0, 0, 2), ONE_RECORD),
        (OPT + RECORD * 300, (1, 0, 0, 301), ONE_RECORD),
        (OPT + RECORD * 400, (1, 0, 0, 401), ONE_RECORD),
        (RECORD * 400 + OPT, (1, 0, 0, 401), None),
        (RECORD, (1, 1, 0, 0), None),
        (RECORD, (1, 0, 0, 1), None),
        (opt(owner=NAME), (1, 0, 0, 1), None),
        (OPT[:-3], (1, 0, 0, 1), None),
        (OPT, (1, 1, 0, 0), None),
    ],
)
@pytest.mark.parametrize("transport", Transport)
def test_malformed(rest: bytes, counts: tuple[int, int, int, int], why: str | None, transport: Transport) -> None:
    """
    A query whose question is good and the rest is not gets FORMERR with that question; with an OPT if it had one that
    could be found (RFC 6891, section 6.1.1), so that no client takes the server for one without EDNS, and the reason.
    """
    message = packet(NAME + SOA_IN + rest, counts=counts)
    reply = reply_to(message, transport)
    read = dns.message.from_wire(reply)

    assert f"8101 0001 0000 0000 000{int(why is not None)}" == head(reply)
    assert NAME + SOA_IN == reply[12 : 12 + len(NAME) + 4]
    assert [] == read.answer + read.authority + read.additional
    if why is None:
        assert -1 == read.edns
    else:
        assert (0, UDP_CEILING, rest[-15:-13] == b"\x80\0") == (read.edns, read.payload, bool(read.ednsflags))
        assert [(0, why)] == reasons(read)
    assert reply == reply_to(message, transport)


def reasons(message: dns.message.Message) -> list[tuple[int, str | None]]:
    """The extended errors in *message*: all the options that it has."""
    assert all(isinstance(option, dns.edns.EDEOption) for option in message.options)
    return [(int(option.code), option.text) for option in message.options if isinstance(option, dns.edns.EDEOption)]


@pytest.mark.parametrize(
    ("option", "why"),
    [(b"\0\x0a\0\x07ABCDEFG", BAD_COOKIE), (b"", "a query without a question must ask for a DNS cookie")],
)
def test_malformed_cookie_request(option: bytes, why: str) -> None:
    """So does a query without a question whose only wish is a cookie, and that does not ask for it well."""
    reply = reply_to(packet(opt(option), counts=(0, 0, 0, 1)))

    assert "8101 0000 0000 0000 0001" == head(reply)
    assert [(0, why)] == reasons(dns.message.from_wire(reply))


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


@pytest.mark.parametrize(
    ("name", "rcode", "code", "text"),
    [
        (NAME, 5, 18, "this server is the primary of the zone"),
        (b"\x03org\0", 9, 20, None),
    ],
)
@pytest.mark.parametrize("records", [b"", RECORD * 20], ids=["empty", "with a record"])
def test_notify_is_refused(name: bytes, rcode: int, code: int, text: str | None, records: bytes) -> None:
    """There is no news for a primary: REFUSED for our zone, NOTAUTH for others, with the question and an OPT."""
    message = packet(name + SOA_IN + records + OPT, flags=0x2500, counts=(1, len(records) // 11, 0, 1))
    reply = reply_to(message)

    assert f"a00{rcode} 0001 0000 0000 0001" == head(reply)
    assert name + SOA_IN == reply[12 : 12 + len(name) + 4]
    assert [(code, text)] == reasons(dns.message.from_wire(reply))
    assert f"a00{rcode} 0001 0000 0000 0000" == head(reply_to(packet(name + SOA_IN, flags=0x2400)))


@pytest.mark.parametrize("flags", [0x2400, 0x2800])
def test_edns_of_other_opcodes(flags: int) -> None:
    """An OPT in an update or a NOTIFY is held to the same rules: FORMERR for a bad option, BADVERS for a version."""
    bad, newer = (
        dns.message.from_wire(reply_to(packet(NAME + SOA_IN + rest, flags=flags, counts=(1, 0, 0, 1))))
        for rest in (opt(b"\0\x0a\0\x07ABCDEFG"), opt(version=1))
    )

    assert (dns.rcode.FORMERR, [(0, BAD_COOKIE)]) == (bad.rcode(), reasons(bad))
    assert (dns.rcode.BADVERS, 0) == (newer.rcode(), newer.edns)
    assert [] == reasons(newer)


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
    assert "8101 0001 0000 0000 0000" == head(reply_to(packet(NAME + b"\0\xfb\0\x01" + soa, counts=(1, 0, 1, 1))))


@pytest.mark.parametrize("count", [64, 65, 900, 16_000])
def test_many_options(count: int) -> None:
    """However many options there are, the query is answered, and the cookie behind as many as a datagram can hold."""
    unknown = b"\xff\x01\0\0" * count
    cookies = Cookies((b"k" * 16,), lambda: 1000)
    message = packet(NAME + SOA_IN + opt(unknown + b"\0\x0a\0\x088octets."), counts=(1, 0, 0, 1))
    reply = Exchange(zones(), cookies=cookies).respond(message, Transport.TCP, CLIENT)

    assert isinstance(reply, bytes)
    assert "8500 0001 0001 0000 0001" == head(reply)
    assert [10] * (count < MAX_OPTIONS) == [option.otype for option in dns.message.from_wire(reply).options]


def test_every_type_has_an_answer() -> None:
    """All 65,536 types get a well-formed answer with a known rcode."""
    served = Exchange(zones())
    rcodes = set()
    for rrtype in range(65_536):
        reply = served.respond(packet(NAME + struct.pack("!HH", rrtype, 1)), Transport.UDP, CLIENT)
        assert isinstance(reply, bytes)
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
    ("name", "rrtype", "expected"),
    [
        ("example.org", "A", [(20, None)]),
        ("acme.example.com", "AXFR", [(18, None)]),
        ("acme.example.com", "TYPE128", [(30, None)]),
        ("acme.example.com", "MAILA", [(21, None)]),
        ("nope.acme.example.com", "A", [(0, "no token covers this name")]),
        ("nope.acme.example.com", "TYPE65280", [(0, "no token covers this name")]),
        ("lost.acme.example.com", "TXT", [(0, "no token covers this name")]),
        ("_acme-challenge.none.acme.example.com", "TXT", []),
        ("acme.example.com", "DS", []),
    ],
)
def test_extended_errors(name: str, rrtype: str, expected: list[tuple[int, str | None]]) -> None:
    """A refusal comes with its reason (RFC 8914), and so does an NXDOMAIN, again and again; no other answer does."""
    served = Exchange(zones())
    message = dns.message.make_query(name, rrtype, use_edns=0).to_wire()
    for _ in range(3):
        assert expected == reasons(dns.message.from_wire(made(served.respond(message, Transport.UDP, CLIENT))))


def test_no_reason_without_edns() -> None:
    """There is nowhere to put it."""
    assert -1 == ask(zones(), "nope.acme.example.com", "A").edns


def test_reason_that_does_not_fit() -> None:
    """What would be too long with its reason goes without: TC would cost the client a connection, for a text."""
    query = parse(packet(NAME + SOA_IN + opt(size=512), counts=(1, 0, 0, 1)))
    assert isinstance(query, Query)
    why = option(15, b"\0\0why")
    room = 512 - HEADER - len(query.question) - len(OPT) - 12
    for size, reasoned, cut in (
        (room - len(why), True, False),
        (room - len(why) + 1, False, False),
        (room, False, False),
        (room + 1, False, True),
    ):
        text = RRset(Name(query.qname), RRType.TXT, 1, (b"x" * size,))
        reply = render(query, compile_answer(query.qname, Rcode.NXDOMAIN, authority=(text,)), Transport.UDP, why=why)
        assert (reasoned, cut) == (reply.endswith(why), bool(reply[2] & 0x02))
        assert len(reply) <= 512


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (packet(NAME + SOA_IN + OPT, counts=(1, 0, 0, 1)), "8102 0001 0000 0000 0001"),
        (packet(NAME + SOA_IN + OPT, flags=0x2900, counts=(1, 0, 0, 1)), "a802 0001 0000 0000 0001"),
        (packet(NAME + SOA_IN), "8102 0001 0000 0000 0000"),
        (packet(b"\xc0\x0c" + SOA_IN), "8102 0000 0000 0000 0000"),
        (packet(flags=0x1000), "9002 0000 0000 0000 0000"),
    ],
)
def test_refusal(message: bytes, expected: str) -> None:
    """A reply of one rcode has the question and an OPT, with the reason, as far as those of the message can be read."""
    why = option(15, b"\0\0why")
    reply = refusal(message, Rcode.SERVFAIL, why)

    assert expected == head(reply)
    assert reply.endswith(why) == expected.endswith("1")


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


@pytest.mark.parametrize("count", [1, 6, 13])
@pytest.mark.parametrize("size", [None, 512, 600, 700, 1000, 1232])
@pytest.mark.parametrize("label", ["ns", "nameserver-"])
def test_glue_that_does_not_fit(count: int, size: int | None, label: str) -> None:
    """
    Addresses of nameservers that do not fit are left out, whole RRsets of them; TC is for what was asked for (RFC 2181,
    section 9). No address is left out that would fit.
    """
    served = Exchange(Zones([with_nameservers(label, count)]))
    query = dns.message.make_query("acme.example.com", "NS", use_edns=-1 if size is None else 0, payload=size or 0)
    whole = dns.message.from_wire(made(served.respond(query.to_wire(), Transport.TCP, CLIENT)))
    octets = made(served.respond(query.to_wire(), Transport.UDP, CLIENT))
    reply = dns.message.from_wire(octets)
    left_out = [rrset for rrset in whole.additional if rrset not in reply.additional]

    assert not reply.flags & dns.flags.TC
    assert count == len(reply.answer[0])
    assert whole.answer == reply.answer
    assert 2 * count == len(whole.additional)
    assert all(rrset in whole.additional for rrset in reply.additional)
    assert len(octets) <= (size or 512)
    for rrset in left_out:
        assert len(octets) + sum(12 + len(rdata.to_digestable()) for rdata in rrset) > (size or 512)
    assert bool(left_out) == (len(whole.wire or b"") > (size or 512))


def with_nameservers(label: str, count: int) -> Static:
    """A zone with that many nameservers of two addresses each."""
    addresses = "".join(f"{label}{n} A 192.0.2.{n}\n{label}{n} AAAA 2001:db8::{n}\n" for n in range(count))
    names = [Name.parse(f"{label}{n}.acme.example.com") for n in range(count)]
    soa, *_ = static().rrsets
    nameservers = RRset(soa.owner, RRType.NS, 3600, tuple(name.wire for name in names))
    records = parse_records(addresses, soa.owner, default_ttl=3600)
    return Static(apex=soa.owner, rrsets=(soa, nameservers, *records), txt_ttl=1)


def test_nameservers_that_do_not_fit() -> None:
    """Where the nameservers themselves do not fit, the reply is cut."""
    served = Exchange(Zones([with_nameservers("n" * 60, 13)]))
    for edns, cut in ((-1, True), (0, False)):
        query = dns.message.make_query("acme.example.com", "NS", use_edns=edns, payload=1232)
        reply = dns.message.from_wire(made(served.respond(query.to_wire(), Transport.UDP, CLIENT)))
        assert cut == bool(reply.flags & dns.flags.TC)
        assert cut == (not reply.answer)


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


def test_names_are_compressed_against_each_other() -> None:
    """A name that was there before is a pointer to it, in owners and in data, unless no pointer reaches it."""
    zone = "a-zone.example.net"
    names = [Name.parse(f"ns{n}.{zone}") for n in range(1200)]
    nameservers = RRset(Name.parse("acme.example.com"), RRType.NS, 1, tuple(name.wire for name in names))
    addresses = [RRset(name, RRType.A, 1, (b"\x7f\0\0\1", b"\x7f\0\0\2")) for name in (*names[:50], *names[-50:])]
    parsed = parse(packet(NAME + b"\0\2\0\1"))
    assert isinstance(parsed, Query)
    answer = compile_answer(parsed.qname, 0, answer=(nameservers,), additional=addresses)
    reply = dns.message.from_wire(render(parsed, answer, Transport.TCP))

    assert {str(name) + "." for name in names} == {rdata.target.to_text() for rdata in reply.answer[0]}
    assert [rrset.owner.fqdn for rrset in addresses] == [rrset.name.to_text() for rrset in reply.additional]
    assert 1 == answer.body.count(b"\x06a-zone")
    few = compile_answer(parsed.qname, 0, answer=(nameservers,), additional=addresses[:1])
    assert ((2, 2 * (2 + 10 + 4)),) == few.optional


def test_compression_respects_labels() -> None:
    """A suffix that only looks like the question's name is not compressed against the middle of a label."""
    owner = Name.parse("a.x")
    question = b"\x05b\x01a\x01x\x00"[:5] + b"z\0"  # one label whose octets contain "\x01a\x01x"
    answer = compile_answer(question, 0, answer=(RRset(owner, RRType.A, 1, (b"\x7f\0\0\1",)),))

    assert answer.body.startswith(owner.wire)


def record(owner: bytes, rrtype: int, rclass: int = 1, rdata: bytes = b"") -> bytes:
    return owner + struct.pack("!HHIH", rrtype, rclass, 0, len(rdata)) + rdata


TSIG = record(b"\x03key\0", 250, 255, b"rdata")


@pytest.mark.parametrize("flags", [0x0000, 0x2000, 0x2800])
@pytest.mark.parametrize(
    ("counts", "records"),
    [
        ((1, 0, 0, 1), [TSIG]),
        ((1, 0, 0, 2), [OPT, TSIG]),
        ((1, 0, 0, 1), [TSIG, b"trailer"]),
    ],
)
def test_where_the_signature_is(flags: int, counts: tuple[int, int, int, int], records: list[bytes]) -> None:
    """A TSIG is one if it is the last record, of class ANY and TTL 0, its name written out."""
    body = NAME + SOA_IN + b"".join(records)

    parsed = parse(packet(body, flags=flags, counts=counts))

    assert isinstance(parsed, Query)
    assert (12 + body.index(TSIG), "") == (parsed.tsig, parsed.edns.fault)


@pytest.mark.parametrize("flags", [0x0000, 0x2000, 0x2800])
@pytest.mark.parametrize(
    ("counts", "records", "fault"),
    [
        ((1, 0, 0, 2), [TSIG, OPT], "the last record"),
        ((1, 0, 0, 2), [TSIG, TSIG], "the only one"),
        ((1, 0, 1, 1), [TSIG, TSIG], "the only one"),
        ((1, 1, 0, 1), [TSIG, OPT], "the last record"),
        ((1, 0, 0, 1), [TSIG[:-1]], "cut short"),
        ((1, 0, 0, 65_535), [TSIG], "cut short"),
        ((1, 0, 0, 1), [b"\x40" * 40], "cut short"),
        ((1, 0, 0, 1), [record(b"\xc0\x0c", 250, 255)], "not compressed"),
        ((1, 0, 0, 1), [record(b"\x03key\0", 250, 1)], "class ANY"),
        ((1, 0, 0, 1), [record(b"\x03key\0", 250, 254)], "class ANY"),
        ((1, 0, 0, 1), [b"\x03key\0" + struct.pack("!HHIH", 250, 255, 1, 0)], "TTL 0"),
    ],
)
def test_malformed_signatures(flags: int, counts: tuple[int, int, int, int], records: list[bytes], fault: str) -> None:
    """What is meant as a signature, and is none, is FORMERR (RFC 8945, sections 4.2, 5.1), and not "unsigned"."""
    body = NAME + SOA_IN + b"".join(records)

    parsed = parse(packet(body, flags=flags, counts=counts))

    assert isinstance(parsed, Query)
    assert 0 == parsed.tsig
    assert fault in parsed.edns.fault
    assert Rcode.FORMERR == reply_to(packet(body, flags=flags, counts=counts))[3]


@pytest.mark.parametrize("flags", [0x0000, 0x2800])
@pytest.mark.parametrize(("counts", "records"), [((1, 0, 0, 0), [TSIG]), ((1, 0, 0, 1), [OPT, TSIG])])
def test_no_signature(flags: int, counts: tuple[int, int, int, int], records: list[bytes]) -> None:
    """What comes behind the last record that the header counts is ignored."""
    parsed = parse(packet(NAME + SOA_IN + b"".join(records), flags=flags, counts=counts))

    assert isinstance(parsed, Query)
    assert (0, "") == (parsed.tsig, parsed.edns.fault)


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
