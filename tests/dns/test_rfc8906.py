"""
The tests of RFC 8906, section 8, over real sockets: one for each item, with the queries and expectations given there.

What `dig` is told there is said here with dnspython: `+noad +norec` is `FLAGS = 0`, `+edns=1 +noednsneg` is `edns=1`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from responder.dns.wire import Transport
from tests.support.nameservers import Nameserver, new_source, running
from tests.support.processes import PATIENCE

ZONE = "acme.example.com"
MBZ = 0x0040
"""The one header bit that has no meaning yet, and a bit of the OPT's flags that has none."""

UNKNOWN = dns.edns.GenericOption(dns.edns.OptionType.make(100), b"")
EXPIRE = dns.edns.GenericOption(dns.edns.OptionType.make(9), b"")

Dig = Callable[..., dns.message.Message]


@pytest.fixture(scope="module")
def nameserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nameserver]:
    """One nameserver for the whole list: it changes nothing."""
    with running(tmp_path_factory.mktemp("nameserver")) as started:
        yield started


@pytest.fixture(params=Transport)
def dig(request: pytest.FixtureRequest, nameserver: Nameserver) -> Dig:
    """Ask over UDP and over TCP: the expectations are the same for both."""

    def ask(
        rrtype: str = "SOA",
        *,
        flags: int = 0,
        edns: int = -1,
        ednsflags: int = 0,
        payload: int = 1232,
        options: list[dns.edns.Option] | None = None,
    ) -> dns.message.Message:
        query = dns.message.make_query(
            ZONE, rrtype, use_edns=edns, ednsflags=ednsflags, payload=payload, options=options
        )
        query.flags = dns.flags.Flag(flags)
        return exchange(nameserver, query, request.param)

    return ask


def exchange(nameserver: Nameserver, query: dns.message.Message, transport: Transport) -> dns.message.Message:
    """The reply to *query*, which dnspython has found to be one."""
    if transport is Transport.TCP:
        return dns.query.tcp(query, "127.0.0.1", PATIENCE, nameserver.port)
    return dns.query.udp(query, "127.0.0.1", PATIENCE, nameserver.port, new_source())


def expect_soa(reply: dns.message.Message, flags: int = dns.flags.AA) -> None:
    """Status NOERROR, the SOA record, and exactly *flags*: AA to be present, reserved ones not to be copied."""
    assert dns.rcode.NOERROR == reply.rcode()
    assert [dns.rdatatype.SOA] == [rrset.rdtype for rrset in reply.answer]
    assert dns.flags.QR | flags == reply.flags


def expect_opt(reply: dns.message.Message, ednsflags: int = 0) -> None:
    """An OPT record, EDNS version 0, exactly *ednsflags*, and no option echoed."""
    assert (0, ednsflags, ()) == (reply.edns, reply.ednsflags & 0xFFFF, reply.options)


def expect_badvers(reply: dns.message.Message, ednsflags: int = 0) -> None:
    """Status BADVERS, no SOA record, AA not to be present; an OPT record, EDNS version 0."""
    assert dns.rcode.BADVERS == reply.rcode()
    assert ([], [], []) == (reply.answer, reply.authority, reply.additional)
    assert dns.flags.QR == reply.flags
    expect_opt(reply, ednsflags)


def test_8_1_1_configured_for_the_zone(dig: Dig) -> None:
    """Section 8.1.1: `dig +noedns +noad +norec soa`."""
    reply = dig()

    expect_soa(reply)
    assert -1 == reply.edns


def test_8_1_2_unknown_types(dig: Dig) -> None:
    """Section 8.1.2: `type1000` gives NOERROR, an empty answer section, AA."""
    reply = dig("TYPE1000")

    assert dns.rcode.NOERROR == reply.rcode()
    assert [] == reply.answer
    assert dns.flags.QR | dns.flags.AA == reply.flags


def test_8_1_3_1_cd(dig: Dig) -> None:
    """Section 8.1.3.1: `+cd`."""
    expect_soa(dig(flags=dns.flags.CD))


def test_8_1_3_2_ad(dig: Dig) -> None:
    """Section 8.1.3.2: `+ad`."""
    expect_soa(dig(flags=dns.flags.AD))


def test_8_1_3_3_reserved_bit(dig: Dig) -> None:
    """Section 8.1.3.3: `+zflag` is not copied to the response."""
    expect_soa(dig(flags=MBZ))


def test_8_1_3_4_recursive_queries(dig: Dig) -> None:
    """Section 8.1.3.4: `+rec` gets AA, and RD copied; RA would claim a service that is none of ours."""
    expect_soa(dig(flags=dns.flags.RD), dns.flags.AA | dns.flags.RD)


@pytest.mark.parametrize("transport", Transport)
def test_8_1_4_unknown_opcodes(nameserver: Nameserver, transport: Transport) -> None:
    """Section 8.1.4: `+opcode=15 +header-only` gives NOTIMP, the same opcode, all sections empty, no AA."""
    query = dns.message.Message()
    query.set_opcode(dns.opcode.from_text("15"))

    reply = exchange(nameserver, query, transport)

    assert dns.rcode.NOTIMP == reply.rcode()
    assert 15 == reply.opcode()
    assert 12 == len(reply.wire or b"")
    assert not reply.flags & dns.flags.AA


def test_8_1_5_tcp(nameserver: Nameserver) -> None:
    """Section 8.1.5: `+tcp`. Every other item is asked over TCP, too."""
    query = dns.message.make_query(ZONE, "SOA", flags=0)

    expect_soa(exchange(nameserver, query, Transport.TCP))


def test_8_2_1_minimal_edns(dig: Dig) -> None:
    """Section 8.2.1: `+nocookie +edns=0`."""
    reply = dig(edns=0)

    expect_soa(reply)
    expect_opt(reply)


def test_8_2_2_version_negotiation(dig: Dig) -> None:
    """Section 8.2.2: `+edns=1 +noednsneg`; and every other version there may ever be."""
    for version in range(1, 256):
        expect_badvers(dig(edns=version))


def test_8_2_3_unknown_options(dig: Dig) -> None:
    """Section 8.2.3: `+ednsopt=100` is ignored and not echoed."""
    reply = dig(edns=0, options=[UNKNOWN])

    expect_soa(reply)
    expect_opt(reply)


def test_8_2_4_unknown_flags(dig: Dig) -> None:
    """Section 8.2.4: `+ednsflags=0x40` is not copied."""
    reply = dig(edns=0, ednsflags=MBZ)

    expect_soa(reply)
    expect_opt(reply)


def test_8_2_5_version_negotiation_with_unknown_flags(dig: Dig) -> None:
    """Section 8.2.5: `+edns=1 +noednsneg +ednsflags=0x40`."""
    expect_badvers(dig(edns=1, ednsflags=MBZ))


def test_8_2_6_version_negotiation_with_unknown_options(dig: Dig) -> None:
    """Section 8.2.6: `+edns=1 +noednsneg +ednsopt=100`."""
    expect_badvers(dig(edns=1, options=[UNKNOWN]))


def test_8_2_7_truncated_responses(nameserver: Nameserver) -> None:
    """Section 8.2.7: `+norec +dnssec +bufsize=512 +ignore`, of something longer: a cut reply has its OPT, version 0."""
    query = dns.message.make_query(f"big.{ZONE}", "TXT", flags=0, use_edns=0, payload=512, ednsflags=dns.flags.DO)

    reply = exchange(nameserver, query, Transport.UDP)

    assert dns.rcode.NOERROR == reply.rcode()
    assert reply.flags & dns.flags.TC
    expect_opt(reply, dns.flags.DO)


def test_8_2_7_dnskey_of_an_unsigned_zone(dig: Dig) -> None:
    """Section 8.2.7, as it stands: `+norec +dnssec +bufsize=512 +ignore dnskey` gives NOERROR and an OPT, version 0."""
    reply = dig("DNSKEY", edns=0, ednsflags=dns.flags.DO, payload=512)

    assert dns.rcode.NOERROR == reply.rcode()
    assert [] == reply.answer
    expect_opt(reply, dns.flags.DO)


def test_8_2_8_do(dig: Dig) -> None:
    """Section 8.2.8: `+edns=0 +dnssec`; DO is copied (RFC 3225), signatures or not."""
    reply = dig(edns=0, ednsflags=dns.flags.DO)

    expect_soa(reply)
    expect_opt(reply, dns.flags.DO)


def test_8_2_9_version_negotiation_with_do(dig: Dig) -> None:
    """Section 8.2.9: `+edns=1 +noednsneg +dnssec`; DO is present since it was with version 0."""
    expect_badvers(dig(edns=1, ednsflags=dns.flags.DO), dns.flags.DO)


def test_8_2_10_multiple_defined_options(dig: Dig) -> None:
    """Section 8.2.10: `+cookie +nsid +expire +subnet=0.0.0.0/0`; options that need no answer get none."""
    cookie = dns.edns.GenericOption(dns.edns.COOKIE, b"8octets.")
    nsid = dns.edns.GenericOption(dns.edns.NSID, b"")
    subnet = dns.edns.ECSOption("0.0.0.0", 0)

    reply = dig(edns=0, options=[cookie, nsid, EXPIRE, subnet])

    expect_soa(reply)
    assert (0, 0) == (reply.edns, reply.ednsflags & 0xFFFF)
    assert {option.otype for option in reply.options} <= {dns.edns.COOKIE, dns.edns.NSID}
