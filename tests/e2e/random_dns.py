"""
Random zones, and random queries about them: most of what a client may send, with the corners more often than chance.

Everything comes from the `random.Random` that is handed in, so a seed is all it takes to see a run again. Labels
are few on purpose, so that names meet, lie above and below each other, and are asked for under types they have; now
and then one is of any octets.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random

import dns.name
import dns.rdatatype

APEXES = ("acme.example.com", "xacme.example.com", "acme.example.net", "a.b.c.test")
"""Two that end in the same text without one being in the other, one under another parent, a deep one."""

_LABELS = ("a", "b", "c", "www", "_tcp", "x-y", "0", "z" * 63)
_HOSTS = ("a", "b", "c", "www", "a.b", "deep.a.b", "x.c")
_OUTSIDE = ("example.com", "example.org", "com", "test", "b.c.test", "ns.example.net")


@dataclass(frozen=True, slots=True)
class RandomZone:
    """The *records* of a zone as its configuration has them, its nameservers, and who gets which values."""

    apex: str
    nameservers: Mapping[str, list[str]]
    records: str
    values: Mapping[str, tuple[str, ...]]
    """By hostname, none for some of them. Every hostname is in the zone, so its challenge name starts there, too."""


@dataclass(frozen=True, slots=True)
class RandomQuery:
    """A *packet*, and what there is in it: for whoever compares the replies, and for whoever reads a failure."""

    packet: bytes
    qname: bytes
    qtype: int
    qclass: int
    opcode: int
    size: int | None
    """The largest datagram that its OPT allows; None without one."""
    do: bool
    option: int | None
    """The code of the one option in its OPT, if there is any."""
    over_tcp: bool

    def changed(
        self, *, flags: int | None = None, qtype: int | None = None, over_tcp: bool | None = None
    ) -> RandomQuery:
        """The same query with another second word of its header, another type, or sent in another way."""
        flags = self.flags if flags is None else flags
        qtype = self.qtype if qtype is None else qtype
        end = 12 + len(self.qname)
        pieces = (self.packet[:2], struct.pack("!H", flags), self.packet[4:end], struct.pack("!H", qtype))
        over_tcp = self.over_tcp if over_tcp is None else over_tcp
        return replace(self, packet=b"".join(pieces) + self.packet[end + 2 :], qtype=qtype, over_tcp=over_tcp)

    @property
    def flags(self) -> int:
        """The second word of the header."""
        return int.from_bytes(self.packet[2:4], "big")

    @property
    def question(self) -> bytes:
        """The question, as it has to come back."""
        return self.packet[12 : 12 + len(self.qname) + 4]

    @property
    def name(self) -> dns.name.Name:
        """The name that it asks for."""
        return dns.name.from_wire(self.qname, 0)[0].canonicalize()

    @property
    def zone(self) -> str | None:
        """The apex of the zone that the name is in."""
        return zone_of(self.name)

    def __str__(self) -> str:
        transport = "TCP" if self.over_tcp else "UDP"
        rdtype = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(self.qtype))
        return f"{transport} {self.name} {rdtype} class {self.qclass} opcode {self.opcode}: {self.packet.hex()}"


def zone_of(name: dns.name.Name) -> str | None:
    """The apex of the zone that the name is in."""
    return next((apex for apex in APEXES if name.is_subdomain(dns.name.from_text(apex))), None)


def random_zone(rng: Random, apex: str) -> RandomZone:
    """A zone with a few dozen records, and half a dozen hostnames with a token."""
    hosts = sorted({f"{rng.choice(_HOSTS)}.{apex}" for _ in range(8)})
    challenge_names = [f"_acme-challenge.{host}" for host in hosts]
    owners = sorted({_below(rng, apex) for _ in range(rng.randint(10, 30))})
    aliases = rng.sample([owner for owner in owners if not owner.startswith("_acme-challenge.")], len(owners) // 4)
    elsewhere = [*_OUTSIDE, apex, f"nowhere.{apex}", *(f"www.{other}" for other in APEXES if other != apex)]
    lines = []
    for number, owner in enumerate(owners):
        if owner in aliases:  # of a name that comes later, so that no alias is one of itself in the end
            target = rng.choice([*owners[number + 1 :], *challenge_names, *elsewhere])
            lines.append(f"{owner}. {rng.randint(1, 9000)} IN CNAME {target}.")
    for owner in (apex, *owners):
        if owner not in aliases:
            lines += _rrsets(rng, owner, [*owners, *elsewhere])
    values = {host: tuple({_value(rng) for _ in range(rng.choice((0, 0, 1, 2, 16)))}) for host in hosts}
    nameservers = {f"ns{number}.{apex}": _addresses(rng) for number in range(1, rng.choice((2, 3, 14)))}
    return RandomZone(apex, nameservers | {"ns.example.org": []}, "\n".join(lines), values)


def random_queries(rng: Random, names: list[bytes]) -> Iterator[RandomQuery]:
    """Queries without end, many of them about *names* (wire form) or what is around them."""
    while True:
        yield _query(rng, names)


TYPES = ("A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV", "DNAME", "DS", "SSHFP", "RRSIG", "NSEC",
          "DNSKEY", "NSEC3", "TLSA", "CDS", "SVCB", "HTTPS", "CAA", "TYPE65280", "TYPE65535", "TYPE0")  # fmt: skip
_META_TYPES = ("ANY", "AXFR", "IXFR", "MAILA", "MAILB", "OPT", "TSIG", "TKEY", "TYPE128", "TYPE200")


def _query(rng: Random, names: list[bytes]) -> RandomQuery:
    qname = _scrambled(rng, _qname(rng, names))
    qtype = int(dns.rdatatype.from_text(rng.choice(TYPES if rng.random() < 0.85 else _META_TYPES)))
    qtype = rng.randrange(65536) if rng.random() < 0.02 else qtype
    qclass = 1 if rng.random() < 0.95 else rng.choice((0, 2, 3, 4, 254, 255, 4096))
    opcode = 0 if rng.random() < 0.97 else rng.randrange(1, 16)
    flags = opcode << 11 | sum(bit for bit in (0x0100, 0x0020, 0x0010) if rng.random() < 0.3)
    flags |= rng.choice((0x0400, 0x0200, 0x0080, 0x0040, rng.randrange(16))) if rng.random() < 0.05 else 0
    size, do, option, opt = _opt(rng) if rng.random() < 0.6 else (None, False, None, b"")
    counts = struct.pack("!4H", 1, 0, 0, bool(opt))
    question = qname + struct.pack("!HH", qtype, qclass)
    packet = rng.randbytes(2) + struct.pack("!H", flags) + counts + question + opt
    return RandomQuery(packet, qname, qtype, qclass, opcode, size, do, option, rng.random() < 0.2)


def _qname(rng: Random, names: list[bytes]) -> bytes:
    """A name that exists, one near it, or any other."""
    name = rng.choice(names)
    match rng.randrange(10):
        case 0:  # below it
            return _joined([*(_label(rng) for _ in range(rng.randint(1, 3))), *_split(name)])
        case 1:  # beside it
            return _joined([_label(rng), *_split(name)[1:]])
        case 2:  # above it
            return _joined(_split(name)[rng.randint(1, 3) :])
        case 3 if rng.random() < 0.3:  # below it, as long as can be
            return _longest(rng, _split(name))
        case 4 if rng.random() < 0.3:
            return _joined(rng.choice(_OUTSIDE).encode().split(b"."))
        case _:
            return name


def _label(rng: Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return rng.choice((b"*", b"_acme-challenge", b"\0", b"\xff", b".", b"a.b", b"@", b"\xc0\x0c"))
        case 1:
            return rng.randbytes(rng.randint(1, 63))
        case _:
            return rng.choice(_LABELS).encode()


def _longest(rng: Random, labels: list[bytes]) -> bytes:
    """A name of 255 octets, or one or two less, below another."""
    room = 255 - rng.randrange(3) - len(_joined(labels))
    while room > 64:
        labels = [b"l" * 62, *labels]
        room -= 63
    return _joined([b"l" * (room - 1), *labels] if room > 1 else labels)


def _opt(rng: Random) -> tuple[int, bool, int | None, bytes]:
    """An OPT record: the size it allows, whether DO is set, the option it has, and all of it."""
    code, data = rng.choice(
        (
            (None, b""),
            (None, b""),
            (None, b""),
            (3, b""),  # NSID
            (10, rng.randbytes(8)),  # a client cookie
            (10, rng.randbytes(24)),  # with a server cookie, but none of ours
            (10, bytes(rng.choice((0, 7, 9, 15, 41)))),  # of no good length
            (8, struct.pack("!HBBI", 1, 32, 0, rng.randrange(2**32))),  # client subnet
            (11, b""),  # TCP keepalive
            (12, bytes(100)),  # padding
            (65001, b"???"),  # not assigned
        )
    )
    options = b"" if code is None else struct.pack("!HH", code, len(data)) + data
    if code is not None and rng.random() < 0.02:
        options += b"\0\3\0\1"  # an option that is cut off
    size = rng.choice((0, 100, 511, 512, 600, 1000, 1231, 1232, 1233, 4096, 65535))
    version = 0 if rng.random() < 0.97 else rng.randrange(1, 256)
    flags = rng.choice((0, 0, 0x8000, 0x8000, 0x4000, 0xFFFF))
    record = b"\0" + struct.pack("!HHBBHH", 41, size, 0, version, flags, len(options)) + options
    return size, bool(flags & 0x8000), code, record


def _rrsets(rng: Random, owner: str, targets: list[str]) -> Iterator[str]:
    """Up to three RRsets of one owner; none of a kind that the service takes from its settings."""
    forms: dict[str, Callable[[], str]] = {
        "A": lambda: f"192.0.2.{rng.randrange(256)}",
        "AAAA": lambda: f"2001:db8::{rng.randrange(65536):x}",
        "TXT": lambda: f'"{"t" * rng.choice((1, 30, 255))}" "second {rng.randrange(99)}"',
        "MX": lambda: f"{rng.randrange(99)} {rng.choice(targets)}.",
        "SRV": lambda: f"0 {rng.randrange(99)} 443 {rng.choice(targets)}.",
        "PTR": lambda: f"{rng.choice(targets)}.",
        "CAA": lambda: f'0 issue "ca{rng.randrange(99)}.example"',
        "SSHFP": lambda: f"4 2 {rng.randbytes(32).hex()}",
        "TLSA": lambda: f"3 1 1 {rng.randbytes(32).hex()}",
        "TYPE65": lambda: r"\# 3 000100",
        "TYPE65280": lambda: rf"\# 4 {rng.randbytes(4).hex()}",
    }
    for rdtype in rng.sample(sorted(forms), rng.randint(1, 3)):
        ttl = rng.randint(1, 90_000)
        datas = {forms[rdtype]() for _ in range(rng.choice((1, 1, 1, 2, 3, 9)))}
        yield from (f"{owner}. {ttl} IN {rdtype} {data}" for data in sorted(datas))


def _addresses(rng: Random) -> list[str]:
    v4, v6 = f"192.0.2.{rng.randrange(256)}", f"2001:db8::{rng.randrange(65536):x}"
    return rng.choice(([v4], [v6], [v4, v6]))


def _value(rng: Random) -> str:
    length = rng.choice((1, 43, 43, 255))
    return "".join(chr(rng.randrange(0x20, 0x7F)) for _ in range(length))


def _below(rng: Random, apex: str) -> str:
    count = rng.choice((1, 1, 1, 2, 3))
    labels = [_text(_label(rng)) if rng.random() < 0.2 else rng.choice(_LABELS) for _ in range(count)]
    if rng.random() < 0.2:
        labels.insert(0, "_acme-challenge")
    return ".".join((*labels, apex))


def _text(label: bytes) -> str:
    """The label as zone text, always the same one for the same label; another one instead of a wildcard."""
    octets = b"x" if label == b"*" else label.lower()
    return re.sub(rb"[^a-z0-9_-]", lambda odd: b"\\%03d" % ord(odd[0]), octets).decode()


def _scrambled(rng: Random, wire: bytes) -> bytes:
    """The name with the case of some letters changed; a length is never a letter."""
    if rng.random() < 0.5:
        return wire
    return bytes(
        octet ^ 0x20 if chr(octet).isalpha() and octet < 128 and rng.random() < 0.5 else octet for octet in wire
    )


def _split(wire: bytes) -> list[bytes]:
    labels, at = [], 0
    while length := wire[at]:
        labels.append(wire[at + 1 : at + 1 + length])
        at += 1 + length
    return labels


def _joined(labels: list[bytes]) -> bytes:
    """The wire form, without as many labels on the left as make it too long."""
    while sum(len(label) + 1 for label in labels) > 254:
        labels = labels[1:]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
