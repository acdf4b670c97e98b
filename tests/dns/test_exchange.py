"""`respond` as a whole: its fast half agrees with the one that defines it, and hostile bytes bring out nothing else."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from responder.dns import exchange
from responder.dns.cookies import Cookies
from responder.dns.exchange import ELSEWHERE, SIGNATURE, Elsewhere, Exchange
from responder.dns.identity import Identity
from responder.dns.ratelimit import RateLimit
from responder.dns.rrset import MAX_RRSET, RRset, RRType
from responder.dns.wire import TCP_CEILING, Query, Rcode, Transport, parse
from responder.dns.zone import Change, Zones
from responder.dns.zonetext import parse_records
from responder.names import Name
from tests.support.zones import APEX, CLIENT, challenge, made, static, zones

SERVED = Exchange(zones(), identity=Identity(nsid="x"), cookies=Cookies((b"k" * 16,), lambda: 1000), updates=True)
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
TSIG = b"\x03key\0" + struct.pack("!HHIH", 250, 255, 0, 5) + b"rdata"
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
    st.just(TSIG),
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


def slowly(packet: bytes, transport: Transport) -> bytes | Elsewhere | None:
    """The reply of the defining half alone: no header is taken for an ordinary one."""
    heads, exchange._HEADS = exchange._HEADS, {}
    try:
        return SERVED.respond(packet, transport, CLIENT)
    finally:
        exchange._HEADS = heads


@settings(max_examples=500)
@given(PACKETS, st.sampled_from(Transport))
def test_fast_half_agrees(packet: bytes, transport: Transport) -> None:
    """Whatever comes, both halves answer alike, whether or not the OPT was seen before."""
    expected = slowly(packet, transport)

    assert expected == SERVED.respond(packet, transport, CLIENT)
    assert expected == SERVED.respond(packet, transport, CLIENT)


@settings(max_examples=300)  # the mutants of tests/test_fuzz.py are many more
@given(PACKETS, st.sampled_from(Transport))
def test_silence_or_a_reply_to_this_question(packet: bytes, transport: Transport) -> None:
    """
    The only outcomes: silence, twelve octets of refusal, or a well-formed reply that echoes this very question; and
    for what is signed, nothing here.
    """
    reply = SERVED.respond(packet, transport, CLIENT)

    if reply is None:
        assert len(packet) < 12 or packet[2] & 0x80
        return
    if reply is ELSEWHERE:
        parsed = parse(packet)
        assert isinstance(parsed, Query)
        assert parsed.tsig
        return
    assert packet[:2] == reply[:2]
    assert reply[2] & 0x80
    assert reply[3] & 0xF0 == 0
    assert (packet[2] ^ reply[2]) & 0x78 == 0
    parsed = parse(packet)
    if not isinstance(parsed, Query):
        assert 12 == len(reply)
        return
    assert parsed.echo == reply[12 : 12 + len(parsed.echo)]
    dns.message.from_wire(reply)
    assert len(reply) <= (parsed.edns.limit if transport is Transport.UDP else 65535)


def test_a_zero_inside_a_label_is_not_the_end_of_a_name() -> None:
    """The fast half looks for the first zero octet; a name with one inside a label must not be taken for another."""
    name = b"\x05ac\0me\x04acme\x07example\x03com\0"
    packet = struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 0) + name + b"\0\x10\0\x01"

    reply = SERVED.respond(packet, Transport.UDP, CLIENT)

    assert isinstance(reply, bytes)
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


def with_options(options: bytes, *, name: str = "acme.example.com", rrtype: str = "SOA") -> bytes:
    query = dns.message.make_query(name, rrtype)
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(options)) + options
    return query.to_wire()[:10] + b"\0\1" + query.to_wire()[12:] + opt


def cookie_option(cookie: bytes) -> bytes:
    return struct.pack("!HH", 10, len(cookie)) + cookie


def served_cookie(reply: bytes | Elsewhere | None) -> bytes:
    """The cookie in a reply, as somebody else's parser reads it."""
    (found,) = (option for option in dns.message.from_wire(made(reply)).options if option.otype == 10)
    return bytes(found.to_wire())


def test_cookie_is_granted_and_recognised() -> None:
    """A client with a cookie of its own gets ours with it, on every kind of answer; sent back, it is recognised."""
    cookies = Cookies((b"k" * 16,), lambda: 1000)
    served = Exchange(zones(), cookies=cookies)
    for name in ("acme.example.com", "nope.acme.example.com", "example.org"):
        for _ in range(2):
            cookie = served_cookie(
                served.respond(with_options(cookie_option(b"c" * 8), name=name), Transport.UDP, CLIENT)
            )
            assert b"c" * 8 == cookie[:8]
            assert cookies.is_ours(cookie, CLIENT)


def test_cookies_of_two_clients_do_not_mix() -> None:
    """The fast half never gives one client's cookie to another that sent the same octets."""
    cookies = Cookies((b"k" * 16,), lambda: 1000)
    served = Exchange(zones(), cookies=cookies)
    packet = with_options(cookie_option(b"c" * 8))
    first = served_cookie(served.respond(packet, Transport.UDP, "192.0.2.7"))
    second = served_cookie(served.respond(packet, Transport.UDP, "192.0.2.8"))

    assert first != second
    assert cookies.is_ours(second, "192.0.2.8")


@pytest.mark.parametrize("length", [0, 1, 7, 9, 15, 41])
def test_malformed_cookies(length: int) -> None:
    """A cookie of an impossible length is FORMERR (RFC 7873, section 5.2.2)."""
    reply = Exchange(zones()).respond(with_options(cookie_option(b"c" * length)), Transport.UDP, CLIENT)

    assert isinstance(reply, bytes)
    assert 1 == reply[3] & 0xF


@pytest.mark.parametrize("second", [b"d" * 8, b"d" * 24, b"d"])
def test_first_of_several_cookies_counts(second: bytes) -> None:
    """Of several cookies in one query only the first is looked at, whatever the others are (RFC 7873, section 5.2)."""
    cookies = Cookies((b"k" * 16,), lambda: 1000)
    first = cookie_option(b"c" * 8)

    reply = Exchange(zones(), cookies=cookies).respond(
        with_options(first + cookie_option(second)), Transport.UDP, CLIENT
    )
    refused = Exchange(zones()).respond(with_options(cookie_option(b"c") + first), Transport.UDP, CLIENT)

    assert b"c" * 8 == served_cookie(reply)[:8]
    assert Rcode.FORMERR == made(refused)[3] & 0xF


def test_cookie_without_question() -> None:
    """A query without a question that asks for a cookie gets just that (RFC 7873, section 5.4), if we give any."""
    packet = struct.pack("!HHHHHH", 7, 0x0100, 0, 0, 0, 1) + with_options(cookie_option(b"c" * 8))[12 + 22 :]
    cookies = Cookies((b"k" * 16,), lambda: 1000)

    reply = Exchange(zones(), cookies=cookies).respond(packet, Transport.UDP, CLIENT)

    assert cookies.is_ours(served_cookie(reply), CLIENT)
    assert isinstance(reply, bytes)
    assert bytes.fromhex("8100 0000 0000 0000 0001") == reply[2:12]
    refused = Exchange(zones()).respond(packet, Transport.UDP, CLIENT)
    assert 1 == made(refused)[3]


def limited(**options: Any) -> Exchange:
    limit = RateLimit(per_second=1, slip=2, exempt=(), clock=lambda: 0.0)
    return Exchange(zones(), limit=limit, **options)


@pytest.mark.parametrize(
    "packet",
    [
        with_options(b""),
        with_options(b"", name="nope.acme.example.com"),
        with_options(b"", name="example.org"),
        with_options(b"", rrtype="TYPE65280"),
    ],
)
def test_rate_limit(packet: bytes) -> None:
    """Above the limit replies are cut, then dropped, positive or negative; over TCP there is none."""
    served = limited()
    first, second, third = (served.respond(packet, Transport.UDP, CLIENT) for _ in range(3))

    assert isinstance(first, bytes)
    assert not first[2] & 0x02
    assert isinstance(second, bytes)
    cut = dns.message.from_wire(second)
    assert cut.flags & dns.flags.TC
    assert (0, []) == (cut.edns, cut.answer + cut.authority + cut.additional)
    assert dns.message.from_wire(packet).question == cut.question
    assert third is None
    assert first == served.respond(packet, Transport.TCP, CLIENT)


def test_rate_limit_covers_refused_messages() -> None:
    """Twelve octets of FORMERR count too: they can be sent in somebody's name like any other."""
    served = limited()
    replies = [served.respond(b"\0\7\1\0" + bytes(8), Transport.UDP, CLIENT) for _ in range(3)]

    assert [12, 12, None] == [reply and len(made(reply)) for reply in replies]


def test_verified_clients_are_not_limited() -> None:
    """Who shows a cookie of ours is answered without limit; one that is not ours helps nobody."""
    served = limited(cookies=Cookies((b"k" * 16,), lambda: 1000))
    cookie = served_cookie(served.respond(with_options(cookie_option(b"c" * 8)), Transport.UDP, CLIENT))

    good = [served.respond(with_options(cookie_option(cookie)), Transport.UDP, CLIENT) for _ in range(9)]
    assert not any(made(reply)[2] & 0x02 for reply in good)
    forged = [served.respond(with_options(cookie_option(cookie[:-1] + b"x")), Transport.UDP, CLIENT) for _ in range(9)]
    assert None in forged


def test_forgetting_cookies() -> None:
    """After `forget_cookies` a remembered cookie is checked anew, and an old one no longer counts."""
    now = [1000]
    served = limited(cookies=Cookies((b"k" * 16,), lambda: now[0]))
    cookie = served_cookie(served.respond(with_options(cookie_option(b"c" * 8)), Transport.UDP, CLIENT))
    assert served.respond(with_options(cookie_option(cookie)), Transport.UDP, CLIENT) is not None
    now[0] += 7200

    served.forget_cookies()

    assert None in [served.respond(with_options(cookie_option(cookie)), Transport.UDP, CLIENT) for _ in range(3)]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("version.bind", "9"),
        ("VERSION.server", "9"),
        ("id.server", "ns1"),
        ("hostname.bind", "ns1"),
        ("other.bind", None),
    ],
)
def test_chaos(name: str, told: str | None) -> None:
    """Class CHAOS tells what is configured, and is refused otherwise (RFC 4892)."""
    query = dns.message.make_query(name, "TXT", "CH")
    served = Exchange(zones(), identity=Identity(version="9", hostname="ns1"))

    answered = dns.message.from_wire(made(served.respond(query.to_wire(), Transport.UDP, CLIENT)))
    refused = dns.message.from_wire(made(Exchange(zones()).respond(query.to_wire(), Transport.UDP, CLIENT)))

    assert dns.rcode.REFUSED == refused.rcode()
    if told is None:
        assert dns.rcode.REFUSED == answered.rcode()
    else:
        assert f'{name} 0 CH TXT "{told}"' == answered.answer[0].to_text().replace(". 0", " 0")


def test_nsid_and_keepalive() -> None:
    """NSID is told to who asks, the idle time-out to who asks over TCP; neither to anybody else."""
    served = Exchange(zones(), identity=Identity(nsid="ns1"), tcp_idle=10.0)
    packet = with_options(b"\0\3\0\0\0\x0b\0\0")

    over_udp, over_tcp = (dns.message.from_wire(made(served.respond(packet, t, CLIENT))) for t in Transport)

    assert [(3, b"ns1")] == [(option.otype, option.to_wire()) for option in over_udp.options]
    assert [(3, b"ns1"), (11, b"\0\x64")] == [(option.otype, option.to_wire()) for option in over_tcp.options]
    plain = dns.message.from_wire(made(served.respond(with_options(b""), Transport.TCP, CLIENT)))
    assert () == tuple(plain.options)


@pytest.mark.parametrize("size", [512, 600, 1232])
def test_what_a_client_takes_is_never_exceeded(size: int) -> None:
    """Where a reply is cut and still too long, options go that nobody needs: the longest name, the longest NSID."""
    served = Exchange(
        zones(), identity=Identity(nsid="x" * 255), cookies=Cookies((b"k" * 16,), lambda: 1000), updates=True
    )
    qname = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 44, "acme.example.com"])
    query = dns.message.make_query(
        qname,
        "TXT",
        use_edns=0,
        payload=size,
        options=[
            dns.edns.GenericOption(dns.edns.OptionType.NSID, b""),
            dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"c" * 8),
        ],
    )
    packet = query.to_wire()
    signed = packet[:11] + b"\2" + packet[12:] + TSIG

    reply = made(served.respond(packet, Transport.UDP, CLIENT))
    draft = served.draft(signed, Transport.UDP, CLIENT).octets

    assert 255 == len(query.question[0].name.to_wire() or b"")
    assert len(reply) <= size
    assert len(draft) <= size - SIGNATURE
    for octets in (reply, draft):
        assert 10 in [option.otype for option in dns.message.from_wire(octets).options]


OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)


def update(
    zone: str = "acme.example.com",
    rrtype: int = 6,
    rclass: int = 1,
    tail: bytes = TSIG,
    opcode: int = 5,
    additional: int = 1,
) -> bytes:
    """An update with nothing in it but its zone section, and a TSIG that signs nothing."""
    header = struct.pack("!HHHHHH", 0x1234, opcode << 11, 1, 0, 0, additional if tail else 0)
    return header + Name.parse(zone).wire + struct.pack("!HH", rrtype, rclass) + tail


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (update(), None),
        (update("AcMe.example.com"), None),
        (update(tail=b""), Rcode.REFUSED),
        (update(tail=TSIG[:-1]), Rcode.FORMERR),
        (update(tail=TSIG + TSIG, additional=2), Rcode.FORMERR),
        (update("example.com", tail=TSIG[:-1]), Rcode.FORMERR),
        (update(rrtype=255, tail=b""), Rcode.FORMERR),
        (update("example.com", tail=b""), Rcode.NOTAUTH),
        (update("some.acme.example.com", tail=b""), Rcode.NOTAUTH),
        (update(".", tail=b""), Rcode.NOTAUTH),
        (update("example.org", tail=b""), Rcode.NOTAUTH),
        (update(rclass=3, tail=b""), Rcode.NOTAUTH),
        (update(rclass=255, tail=b""), Rcode.NOTAUTH),
        (update(rrtype=255), None),
        (update("example.com"), None),
        (update(rclass=3), None),
    ],
)
@pytest.mark.parametrize("transport", Transport)
def test_updates(packet: bytes, rcode: Rcode | None, transport: Transport) -> None:
    """What is signed is answered elsewhere, where replies are signed; the rest is refused, with its zone section."""
    reply = SERVED.respond(packet, transport, CLIENT)

    if rcode is None:
        assert ELSEWHERE == reply
        assert b"" == SERVED.draft(packet, transport, CLIENT).octets
    else:
        assert isinstance(reply, bytes)
        end = packet.index(0, 12) + 5
        zone_section = packet[12:end] if packet[12:end].endswith(b"\0\6\0\1") else b""
        counts = bytes((0, bool(zone_section))) + bytes(6)
        assert b"\x12\x34\xa8" + bytes((rcode,)) + counts + zone_section == reply


@pytest.mark.parametrize(
    ("packet", "code", "text"),
    [
        (update(tail=OPT), 18, "an update must be signed with the key of a token"),
        (update(tail=OPT, rrtype=255), 0, "the zone section of an update must ask for a SOA"),
        (update("some.acme.example.com", tail=OPT), 20, "an update must name a zone that is served here"),
    ],
)
def test_reasons_of_refused_updates(packet: bytes, code: int, text: str) -> None:
    """A client that sends an OPT is told why its update is refused."""
    reply = dns.message.from_wire(made(SERVED.respond(packet, Transport.UDP, CLIENT)))

    (why,) = reply.options
    assert isinstance(why, dns.edns.EDEOption)
    assert (code, text) == (why.code, why.text)


def test_signature_behind_an_opt() -> None:
    """An update with both is answered elsewhere: the OPT is for the reply, the signature for who can check it."""
    assert ELSEWHERE == SERVED.respond(update(tail=OPT + TSIG, additional=2), Transport.UDP, CLIENT)


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (update(opcode=4), Rcode.REFUSED),
        (update("example.com", opcode=4), Rcode.NOTAUTH),
        (update(opcode=0, rrtype=252), Rcode.REFUSED),
        (update(opcode=0, rrtype=41), Rcode.FORMERR),
        (b"\x12\x34\0\0\0\1\0\1\0\0\0\1" + update(opcode=0)[12:29] + b"\0\6\0\1" + OPT + TSIG, Rcode.FORMERR),
    ],
    ids=["NOTIFY", "NOTIFY elsewhere", "transfer", "no question", "answers in a query"],
)
def test_what_is_signed_and_refused(packet: bytes, rcode: Rcode) -> None:
    """Refusals of what is signed come from there as well, where their signature is made (RFC 8945, section 5.3)."""
    assert ELSEWHERE == SERVED.respond(packet, Transport.UDP, CLIENT)

    draft = SERVED.draft(packet, Transport.UDP, CLIENT)

    assert rcode == draft.octets[3] & 0xF


def test_updates_that_are_off() -> None:
    """Without updates there are none, and nobody could check a signature."""
    served = Exchange(zones())

    for packet, rcode in ((update(), Rcode.NOTIMP), (update(tail=b""), Rcode.NOTIMP), (update(opcode=0), 1)):
        reply = served.respond(packet, Transport.UDP, CLIENT)
        assert isinstance(reply, bytes)
        assert (rcode, packet[12:34]) == (reply[3] & 0xF, reply[12:])


def test_rate_limit_covers_updates() -> None:
    """An update counts like any packet; above the limit it is dropped, for a cut reply could look like success."""
    served = limited(updates=True)

    assert [ELSEWHERE, None, None] == [served.respond(update(), Transport.UDP, CLIENT) for _ in range(3)]
    assert ELSEWHERE == served.respond(update(), Transport.TCP, CLIENT)


@pytest.mark.parametrize("edns", [-1, 0])
def test_draft_of_a_signed_query(edns: int) -> None:
    """A signed query is answered elsewhere, too; the answer is known here, and leaves room for a signature."""
    query = dns.message.make_query("acme.example.com", "SOA", use_edns=edns)
    plain = query.to_wire()
    signed = plain[:11] + bytes((plain[11] + 1,)) + plain[12:] + TSIG
    served = Exchange(zones(), updates=True)

    assert ELSEWHERE == served.respond(signed, Transport.UDP, CLIENT)
    assert served.respond(plain, Transport.UDP, CLIENT) == served.draft(signed, Transport.UDP, CLIENT).octets


def test_cookie_in_a_signed_query() -> None:
    """It is granted as in any other query, and not remembered with the octets of one signature."""
    cookies = Cookies((b"k" * 16,), lambda: 1000)
    served = Exchange(zones(), cookies=cookies, updates=True)
    plain = with_options(cookie_option(b"c" * 8))
    signed = plain[:11] + b"\2" + plain[12:] + TSIG

    assert ELSEWHERE == served.respond(signed, Transport.UDP, CLIENT)
    assert cookies.is_ours(served_cookie(served.draft(signed, Transport.UDP, CLIENT).octets), CLIENT)
    assert {} == served._cookie_opts


def test_draft_that_is_cut() -> None:
    """One that would not fit with a signature is cut."""
    for length in range(250, 400, 10):
        served = Exchange(zones({challenge("two"): ("a" * 100, "b" * 100, "c" * (length - 200))}), updates=True)
        plain = dns.message.make_query(str(challenge("two")), "TXT", use_edns=-1).to_wire()
        draft = served.draft(plain[:11] + b"\1" + plain[12:] + TSIG, Transport.UDP, CLIENT).octets

        assert len(draft) <= 512 - SIGNATURE
        assert bool(draft[2] & 0x02) == (len(made(served.respond(plain, Transport.UDP, CLIENT))) > 512 - SIGNATURE)


def test_the_longest_answer() -> None:
    """
    The largest RRset that zone text takes is answered whole over TCP, signed or not, whatever is around it: as many
    challenge values as one name can have, as many aliases as are followed, every option, the longest of names.
    """
    names = [Name.from_labels([bytes((97 + n,)) * 63] * 3 + [b"x" * 44, *APEX.labels]) for n in range(9)]
    aliases = "".join(f"{a}. CNAME {b}.\n" for a, b in itertools.pairwise(names))
    text = b"\xc8" + b"x" * 197
    records = parse_records(aliases, APEX, default_ttl=60)
    texts = RRset(names[-1], RRType.TXT, 60, tuple(text + n.to_bytes(3, "big") for n in range(MAX_RRSET // 213)))
    served = Zones([replace(static(), rrsets=(*static().rrsets, *records, texts))])
    values = tuple(chr(97 + n) * 255 for n in range(16))
    served.apply(Change(apex=APEX, previous=0, serial=1, names={names[-1]: values}))
    exchange = Exchange(
        served, identity=Identity(nsid="x" * 255), cookies=Cookies((b"k" * 16,), lambda: 1000), updates=True
    )
    packet = with_options(cookie_option(b"c" * 8) + b"\0\3\0\0\0\x0b\0\0", name=str(names[0]), rrtype="TXT")
    reply = made(exchange.respond(packet, Transport.TCP, CLIENT))
    draft = exchange.draft(packet[:11] + b"\2" + packet[12:] + TSIG, Transport.TCP, CLIENT).octets

    assert reply == draft
    assert len(draft) <= TCP_CEILING - SIGNATURE
    assert 8 + len(texts.rdatas) + 16 == sum(len(rrset) for rrset in dns.message.from_wire(reply).answer)


@pytest.mark.parametrize(
    ("name", "rrtype", "rcode"),
    [
        ("_acme-challenge.two.acme.example.com", "TXT", dns.rcode.SERVFAIL),
        ("_acme-challenge.two.acme.example.com", "ANY", dns.rcode.SERVFAIL),
        ("_acme-challenge.nowhere.acme.example.com", "TXT", dns.rcode.SERVFAIL),
        ("bare.acme.example.com", "TXT", dns.rcode.SERVFAIL),
        ("leaf.ent.acme.example.com", "TXT", dns.rcode.NOERROR),
        ("_acme-challenge.two.acme.example.com", "A", dns.rcode.NOERROR),
        ("bare.acme.example.com", "CNAME", dns.rcode.NOERROR),
        ("acme.example.com", "SOA", dns.rcode.NOERROR),
        ("ns1.acme.example.com", "A", dns.rcode.NOERROR),
    ],
)
def test_doubt(name: str, rrtype: str, rcode: int) -> None:
    """While values may be stale, a TXT that depends on them is SERVFAIL with "Not Ready"; all else is as before."""
    server = Exchange(zones())
    query = dns.message.make_query(name, rrtype, use_edns=0)

    def ask() -> tuple[int, list[int]]:
        reply = dns.message.from_wire(made(server.respond(query.to_wire(), Transport.UDP, CLIENT)))
        return reply.rcode(), [int(option.code) for option in reply.options if isinstance(option, dns.edns.EDEOption)]

    before = ask()
    server.doubt(is_doubtful=True)
    assert ((rcode, [14]) if rcode == dns.rcode.SERVFAIL else before) == ask()
    server.doubt(is_doubtful=False)
    assert before == ask()
