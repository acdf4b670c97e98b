"""Zone text: what it means, what is wrong with it, and that what is printed reads back."""

from __future__ import annotations

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.dns.rrset import MAX_RRSET, RRset, RRType
from responder.dns.zonetext import parse_records, print_rrset, rname, soa_rdata
from responder.dns.zonetext.records import MAX_TTL
from responder.errors import InvalidName, InvalidZone
from responder.names import Name

APEX = Name.parse("acme.example.com")
TOO_MUCH = f"octets in a reply, but at most {MAX_RRSET} fit: remove records, or use several names"


def read(text: str) -> list[str]:
    """*text* as it is printed again."""
    rrsets = parse_records(text, APEX, default_ttl=3600)
    return [line for rrset in rrsets for line in print_rrset(rrset).splitlines()]


def faults(text: str) -> tuple[str, ...]:
    """What is wrong with *text*."""
    with pytest.raises(InvalidZone) as caught:
        parse_records(text, APEX, default_ttl=3600)
    return caught.value.faults


# ---- what is read ----


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n  \n; nothing\n", []),
        ("a A 192.0.2.1", ["a.acme.example.com. 3600 IN A 192.0.2.1"]),
        ("a 60 A 192.0.2.1", ["a.acme.example.com. 60 IN A 192.0.2.1"]),
        ("a 60 IN A 192.0.2.1", ["a.acme.example.com. 60 IN A 192.0.2.1"]),
        ("a in 60 a 192.0.2.1", ["a.acme.example.com. 60 IN A 192.0.2.1"]),
        ("a 1h A 192.0.2.1\r\n", ["a.acme.example.com. 3600 IN A 192.0.2.1"]),
        ("a 0 A 192.0.2.1", ["a.acme.example.com. 0 IN A 192.0.2.1"]),
        ("@ 5M A 192.0.2.1", ["acme.example.com. 300 IN A 192.0.2.1"]),
        ("A.acme.Example.com. A 192.0.2.1", ["a.acme.example.com. 3600 IN A 192.0.2.1"]),
        (r"a\.b A 192.0.2.1", [r"a\.b.acme.example.com. 3600 IN A 192.0.2.1"]),
        (r"a\. A 192.0.2.1", [r"a\..acme.example.com. 3600 IN A 192.0.2.1"]),
        (
            "a A 192.0.2.1\n  AAAA 2001:DB8:0::1 ; both\n",
            ["a.acme.example.com. 3600 IN A 192.0.2.1", "a.acme.example.com. 3600 IN AAAA 2001:db8::1"],
        ),
        (
            "a A 192.0.2.2\nb A 192.0.2.3\na A 192.0.2.1\na A 192.0.2.2",
            [
                "a.acme.example.com. 3600 IN A 192.0.2.2",
                "a.acme.example.com. 3600 IN A 192.0.2.1",
                "b.acme.example.com. 3600 IN A 192.0.2.3",
            ],
        ),
        ("$TTL 2m\na A 192.0.2.1", ["a.acme.example.com. 120 IN A 192.0.2.1"]),
        (
            "$ORIGIN sub\na A 192.0.2.1\n$ORIGIN acme.example.com.\nb A 192.0.2.1",
            ["a.sub.acme.example.com. 3600 IN A 192.0.2.1", "b.acme.example.com. 3600 IN A 192.0.2.1"],
        ),
        ("a (\n 60 IN ; comment\n\n A ) 192.0.2.1", ["a.acme.example.com. 60 IN A 192.0.2.1"]),
        ("a CNAME b", ["a.acme.example.com. 3600 IN CNAME b.acme.example.com."]),
        ("a CNAME @", ["a.acme.example.com. 3600 IN CNAME acme.example.com."]),
        ("a CNAME b.example.", ["a.acme.example.com. 3600 IN CNAME b.example."]),
        ("a PTR b", ["a.acme.example.com. 3600 IN PTR b.acme.example.com."]),
        ("@ MX 0 .", ["acme.example.com. 3600 IN MX 0 ."]),
        ("_x._tcp SRV 0 1 443 a", ["_x._tcp.acme.example.com. 3600 IN SRV 0 1 443 a.acme.example.com."]),
        ("a SSHFP 4 2 ab ( cd\n ef )", ["a.acme.example.com. 3600 IN SSHFP 4 2 ABCDEF"]),
        ("a TLSA 3 1 1 abcd", ["a.acme.example.com. 3600 IN TLSA 3 1 1 ABCD"]),
        ('@ CAA 0 ISSUE ";"', ['acme.example.com. 3600 IN CAA 0 issue ";"']),
        ("@ CAA 128 issue ca.example", ['acme.example.com. 3600 IN CAA 128 issue "ca.example"']),
        ("a TXT b c", ['a.acme.example.com. 3600 IN TXT "b" "c"']),
        ('a TXT "b;(c)" ""', ['a.acme.example.com. 3600 IN TXT "b;(c)" ""']),
        (r'a TXT "\"\\\065\200" it\'s', [r'a.acme.example.com. 3600 IN TXT "\"\\A\200" "it' + "'" + 's"']),
        (f"a TXT {'x' * 256}", [f'a.acme.example.com. 3600 IN TXT "{"x" * 255}" "x"']),
        (r"a TYPE65280 \# 4 0102 0304", [r"a.acme.example.com. 3600 IN TYPE65280 \# 4 01020304"]),
        (r"a TYPE65280 \# 0", [r"a.acme.example.com. 3600 IN TYPE65280 \# 0"]),
        (r"a HINFO \# 2 0000", [r"a.acme.example.com. 3600 IN TYPE13 \# 2 0000"]),
        (r"a TYPE1 \# 4 c0000201", ["a.acme.example.com. 3600 IN A 192.0.2.1"]),
    ],
)
def test_records(text: str, lines: list[str]) -> None:
    """Records of the usual types, in every form that RFC 1035 and RFC 3597 give them."""
    assert lines == read(text)


def test_rrset() -> None:
    """Records of one name and type are one RRset, its rdata in wire form, names in lower case."""
    assert (
        RRset(Name.parse("a.acme.example.com"), 15, 3600, (b"\0\1\1b\7example\0", b"\0\2\1c\4acme\7example\3com\0")),
    ) == parse_records("a MX 1 B.example.\na MX 2 c", APEX, default_ttl=3600)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        # the form of a line
        ('a TXT "b', "a quoted string does not end on its line: add the closing quote"),
        ("a TXT b\\", "there is a backslash at the end of the line: remove it"),
        ("a ( A 192.0.2.1", "a parenthesis is never closed: add the missing )"),
        ("a ) A 192.0.2.1", "a parenthesis was never opened: remove the )"),
        (
            "a TXT grün",
            r"'grün' is not ASCII: write such octets as \DDD, and names in their xn-- form",
        ),
        (
            " A 192.0.2.1",
            "the line starts with a space, so it has the owner of the line above, but that has no valid owner",
        ),
        ("$INCLUDE file", "$INCLUDE is not supported: write $TTL SECONDS or $ORIGIN NAME"),
        ("$TTL", "$TTL is not supported: write $TTL SECONDS or $ORIGIN NAME"),
        (
            "$TTL 1y",
            f"'1y' is not a TTL: write seconds, at most {MAX_TTL}, or a number with s, m, h, d or w",
        ),
        (
            f"a {MAX_TTL + 1} A 192.0.2.1",
            f"'{MAX_TTL + 1}' is not a TTL: write seconds, at most {MAX_TTL}, or a number with s, m, h, d or w",
        ),
        (
            f"a {'9' * 5000} A 192.0.2.1",
            f"'{'9' * 40}' is not a TTL: write seconds, at most {MAX_TTL}, or a number with s, m, h, d or w",
        ),
        ("a", "'' is not a record type: write OWNER [TTL] [IN] TYPE DATA"),
        ("a -1 A 192.0.2.1", "'-1' is not a record type: write OWNER [TTL] [IN] TYPE DATA"),
        ("a TYPE65536 x", "'TYPE65536' is not a record type: write OWNER [TTL] [IN] TYPE DATA"),
        ("a TYPE0 x", "'TYPE0' is not a record type: write OWNER [TTL] [IN] TYPE DATA"),
        ("a ch TXT b", "class CH is not served: write IN"),
        ('"a" TXT b', '"a" is quoted: write names without quotes'),
        ("a..b TXT b", "'a..b' has an empty label (two dots in a row, or a dot at its start)"),
        # data
        ("a A 192.0.2", "the data of this A is malformed: write it like A 192.0.2.1"),
        ("a A", "A does not take 0 fields: write it like A 192.0.2.1"),
        ("a A 192.0.2.1 192.0.2.2", "A does not take 2 fields: write it like A 192.0.2.1"),
        ("a AAAA 1:2:3", "the data of this AAAA is malformed: write it like AAAA 2001:db8::1"),
        ("a AAAA fe80::1%lo", "the data of this AAAA is malformed: write it like AAAA 2001:db8::1"),
        ("a MX 65536 b", "the data of this MX is malformed: write it like MX 10 mail.example.net."),
        ("a MX 1_0 b", "the data of this MX is malformed: write it like MX 10 mail.example.net."),
        ("a MX 1 b..c", "'b..c' has an empty label (two dots in a row, or a dot at its start)"),
        ("a TXT", 'TXT does not take 0 fields: write it like TXT "some text"'),
        (r"a TXT \256", 'the data of this TXT is malformed: write it like TXT "some text"'),
        (
            "a TLSA 3 1 1 xyz",
            "the data of this TLSA is malformed: write it like TLSA 3 1 1 123456789abcdef0",
        ),
        ('a CAA 0 is-sue "x"', 'the data of this CAA is malformed: write it like CAA 0 issue "example.net"'),
        (
            f'a CAA 0 {"x" * 256} "x"',
            'the data of this CAA is malformed: write it like CAA 0 issue "example.net"',
        ),
        ("a HINFO x y", r"this type has no text form here: write TYPE13 \# LENGTH HEX (RFC 3597)"),
        (r"a TYPE9999 \#", r"data of any type is written \# LENGTH HEX (RFC 3597)"),
        (r"a TYPE9999 \# 1 0", r"data of any type is written \# LENGTH HEX (RFC 3597)"),
        (r"a TYPE9999 \# 2 00", "2 octets of data are announced, but 1 follow"),
        (r"a A \# 3 c00002", "these octets are not the data of this type: write it like A 192.0.2.1"),
        # what has no place here
        (
            "a.example.com. A 192.0.2.1",
            "a.example.com is outside the zone acme.example.com: remove it, or the dot that makes the name absolute",
        ),
        ("* A 192.0.2.1", "*.acme.example.com: wildcards are not supported: write out each name"),
        ("x.* A 192.0.2.1", "x.*.acme.example.com: wildcards are not supported: write out each name"),
        (
            "_acme-challenge.x CNAME y",
            "_acme-challenge.x.acme.example.com: a CNAME would hide the values of tokens minted for it: remove it",
        ),
        ("@ SOA a b 1 2 3 4 5", "the SOA comes from the settings of the zone: remove this record"),
        ("@ NS a", "the NS records come from the nameservers in the settings of the zone: remove this record"),
        ("a NS b", "a.acme.example.com: delegations are not supported: remove the NS record"),
        ("a DNAME b", "a.acme.example.com: delegations are not supported: remove the DNAME record"),
        (r"a TYPE2 \# 1 00", "a.acme.example.com: delegations are not supported: remove the NS record"),
        ("@ CNAME a", "a CNAME is not allowed at the apex, which has a SOA and NS records: write addresses instead"),
        ("a DS 1 8 2 00", "a.acme.example.com: static records are not signed: remove the DS record"),
        ("a OPT", "a.acme.example.com: type 41 is for queries, not for records: remove it"),
        ("a ANY", "a.acme.example.com: type 255 is for queries, not for records: remove it"),
    ],
)
def test_faulty_line(text: str, fault: str) -> None:
    """Each fault of a line is told with its number and how to mend it."""
    assert (f"line 1: {fault}",) == faults(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "a 1 A 192.0.2.1\na 2 A 192.0.2.2",
            (
                "line 2: a.acme.example.com A has TTL 2, but 1 in line 1: "
                "records of one name and type share their TTL (RFC 2181, section 5.2)"
            ),
        ),
        (
            "a A 192.0.2.1\n\na CNAME b",
            (
                "line 1: a.acme.example.com A is at the same name as the CNAME in line 3: "
                "a name with a CNAME has no other records (RFC 1034, section 3.6.2)"
            ),
        ),
        ("a CNAME b\na CNAME c", "line 2: a.acme.example.com has another CNAME in line 1: keep one"),
        (
            "b A 192.0.2.1\n" + "".join(f"a A 192.0.{n // 250}.{n % 250}\n" for n in range(8000)),
            f"line 2: a.acme.example.com A needs 128000 {TOO_MUCH}",
        ),
        (
            rf"a TYPE65280 \# {MAX_RRSET - 11} {'00' * (MAX_RRSET - 11)}",
            f"line 1: a.acme.example.com TYPE65280 needs {MAX_RRSET + 1} {TOO_MUCH}",
        ),
    ],
)
def test_inconsistent_records(text: str, fault: str) -> None:
    """Faults that only several records together make are told as well."""
    assert (fault,) == faults(text)


def test_every_fault_at_once() -> None:
    """A fault hides none of those after it; a bad owner's further lines are not taken for another's."""
    assert faults("a A 192.0.2.1\nb..c A 192.0.2.1\n A 192.0.2.1\nc (\n\n x )\na 1 A 192.0.2.2") == (
        "line 2: 'b..c' has an empty label (two dots in a row, or a dot at its start)",
        "line 3: the line starts with a space, so it has the owner of the line above, but that has no valid owner",
        "line 4: 'x' is not a record type: write OWNER [TTL] [IN] TYPE DATA",
        (
            "line 7: a.acme.example.com A has TTL 1, but 3600 in line 1: "
            "records of one name and type share their TTL (RFC 2181, section 5.2)"
        ),
    )


# ---- properties ----

words = st.sampled_from(
    [
        "a",
        "@",
        "*",
        "$TTL",
        "$ORIGIN",
        "60",
        "IN",
        "A",
        "MX",
        "TXT",
        "CAA",
        "CNAME",
        "192.0.2.1",
        "::1",
        '"x"',
        r"\#",
        "0",
    ]
)
texts = st.text() | st.lists(words | st.sampled_from([" ", "\n", "(", ")", ";", '"', "\\", "\\1"])).map(" ".join)


@given(texts)
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but `InvalidZone` comes out of any text, and what is accepted reads back as the same."""
    try:
        rrsets = parse_records(text, APEX, default_ttl=60)
    except InvalidZone:
        return

    assert rrsets == parse_records("\n".join(map(print_rrset, rrsets)), APEX, default_ttl=1)


@given(st.lists(st.binary(max_size=255), min_size=1, max_size=4))
def test_txt_reads_back(strings: list[bytes]) -> None:
    """Any octets in a TXT are printed so that we and others read the same octets."""
    rdata = b"".join(bytes((len(string),)) + string for string in strings)
    rrset = RRset(APEX, RRType.TXT, 1, (rdata,))
    text = print_rrset(rrset)

    assert (rrset,) == parse_records(text, APEX, default_ttl=60)
    assert rdata == dns.rdata.from_text("IN", "TXT", text.split(" ", 4)[4]).to_wire()


@given(st.binary(max_size=255))
def test_caa_reads_back(value: bytes) -> None:
    """Any octets in a CAA are printed on one line of plain ASCII, so that we and others read the same octets."""
    rdata = b"\0\5issue" + value
    rrset = RRset(APEX, RRType.CAA, 1, (rdata,))
    text = print_rrset(rrset)

    assert text.isascii()
    assert text.isprintable()
    assert r" \# " not in text
    assert (rrset,) == parse_records(text, APEX, default_ttl=60)
    assert rdata == dns.rdata.from_text("IN", "CAA", text.split(" ", 4)[4]).to_wire()


@given(st.sampled_from(["A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV", "CAA", "TYPE65280"]), st.binary())
def test_any_rdata_prints(rrtype: str, rdata: bytes) -> None:
    """Octets that are not what their type demands are printed as RFC 3597 has it; others read them the same."""
    number = dns.rdatatype.from_text(rrtype)
    line = print_rrset(RRset(APEX, number, 1, (rdata,)))
    text = line.split(" ", 4)[4]

    if text.startswith(r"\#"):
        assert rf"\# {len(rdata)} {rdata.hex()}".rstrip() == text
    else:
        assert rdata.lower() == (dns.rdata.from_text("IN", rrtype, text).to_wire() or b"").lower()


def test_agrees_with_dnspython() -> None:
    """A whole zone means to us what it means to another implementation."""
    text = """
$TTL 300
@        CAA   0 issue ";"
www      A     192.0.2.1
         AAAA  2001:db8::1
alias 60 CNAME www
mail     MX    10 www
         MX    20 mail.example.net.
txt      TXT   ( "one; two" three
                 "f\\"our\\\\" )
_s._tcp  SRV   1 2 3 www.example.net.
x        TYPE65280 \\# 3 01 0203
"""
    theirs = dns.zone.from_text(text, origin="acme.example.com", relativize=False, check_origin=False)

    assert {
        (name.to_wire(), int(rdataset.rdtype), rdataset.ttl, frozenset(rdata.to_wire() for rdata in rdataset))
        for name, rdataset in theirs.iterate_rdatasets()
    } == {
        (rrset.owner.wire, rrset.type, rrset.ttl, frozenset(rrset.rdatas))
        for rrset in parse_records(text, APEX, default_ttl=1)
    }


# ---- SOA ----


@pytest.mark.parametrize(
    ("hostmaster", "name"),
    [
        ("hostmaster@example.com", "hostmaster.example.com"),
        ("Host.Master@Example.com.", r"host\.master.example.com"),
        ("a+b@c", r"a\043b.c"),
    ],
)
def test_rname(hostmaster: str, name: str) -> None:
    """The local part of a mailbox becomes one label, its dots escaped."""
    assert name == str(rname(hostmaster))


@pytest.mark.parametrize("hostmaster", ["", "@", "a@", "a@.", "@b", "hostmaster.example.com", "a@b@c", "a b@c", "ä@b"])
def test_rname_refuses(hostmaster: str) -> None:
    """What is no e-mail address is refused."""
    with pytest.raises(InvalidName) as caught:
        rname(hostmaster)

    assert f'{hostmaster!r} is not an e-mail address: write it like "hostmaster@example.com"' == str(caught.value)


def test_rname_with_a_bad_domain() -> None:
    """The domain of an e-mail address must be a name."""
    with pytest.raises(InvalidName, match="empty label"):
        rname("a@b..c")


@pytest.mark.parametrize("octet", range(256))
def test_names_are_printed_for_every_server(octet: int) -> None:
    """
    All but what hostnames are made of is printed as a number, and a dot escaped: NSD takes some punctuation for its
    own, even behind a backslash, and Knot hardly any without.
    """
    odd = Name.from_labels([bytes((octet,)), *APEX.labels])
    plain = (chr(octet).isalnum() and octet < 128) or chr(octet) in "-_*"
    label = chr(octet).lower() if plain else r"\." if octet == ord(".") else f"\\{octet:03d}"
    records = [
        RRset(APEX, 15, 1, (b"\0\1" + odd.wire,)),
        RRset(APEX, 33, 1, (b"\0\1\0\2\0\3" + odd.wire,)),
        RRset(APEX, 12, 1, (odd.wire,)),
        RRset(odd, 1, 1, (bytes(4),)),
    ]

    for rrset in records:
        line = print_rrset(rrset)
        assert r" \# " not in line
        assert f" {label}.{APEX}." in f" {line}"
        (name,) = (word for word in line.split() if word.endswith(f".{APEX}.") and word != f"{APEX}.")
        assert odd.wire == dns.name.from_text(name).to_wire()


def test_soa() -> None:
    """A SOA is two whole names and five numbers, and prints as zone text, dots in its mailbox escaped."""
    rdata = soa_rdata(Name.parse("ns1.acme.example.com"), rname("a.b@example.com"), 1, 2, 3, 4, 2**32 - 1)
    text = print_rrset(RRset(APEX, RRType.SOA, 5, (rdata,)))

    assert text == r"acme.example.com. 5 IN SOA ns1.acme.example.com. a\.b.example.com. 1 2 3 4 4294967295"
    assert rdata == dns.rdata.from_text("IN", "SOA", text.split(" ", 4)[4]).to_wire()
