"""
Zone text to RRsets and back (RFC 1035, section 5; RFC 3597 for types that have no text form here).

The only user of dnslib, which prints rdata and knows the types by name. Text is read here, because its parser
stops at the first fault, takes decimal escapes for octal, splits names at escaped dots, and takes `1:2:3` for an
address. Nothing here knows the settings, or what else a zone must hold.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NoReturn

from dnslib.dns import QTYPE, RDMAP, DNSError
from dnslib.label import DNSBuffer

from responder.errors import Invalid, InvalidName, InvalidZone
from responder.names import Name
from responder.rrset import RRset, RRType

MAX_TTL = (1 << 31) - 1
"""Seconds (RFC 2181, section 8)."""

MAX_RDATA = 32_768
"""Octets of rdata in one RRset: with owners, lengths and glue, an answer must fit into 64 KiB over TCP."""


def parse_records(text: str, apex: Name, *, default_ttl: int) -> tuple[RRset, ...]:
    """
    Read the static records of the zone *apex*, names relative to it; *default_ttl* is in seconds.

    Raises `InvalidZone` with every fault found, those of single lines first, each with its line's number.
    """
    reader = _Reader(apex, origin=apex, ttl=default_ttl)
    faults = []
    for line, words in _entries(text):
        try:
            reader.read(line, words)
        except Invalid as fault:
            faults.append(f"line {line}: {fault}")
    faults += _inconsistencies(reader.records)
    if faults:
        raise InvalidZone(faults)
    return _group(reader.records)


def print_rrset(rrset: RRset) -> str:
    """Zone text that reads back as *rrset*: a line a record, with absolute owner, TTL, class, type, rdata."""
    head = f"{rrset.owner.fqdn} {rrset.ttl} IN {_type_text(rrset.type)}"
    return "\n".join(f"{head} {_print_rdata(rrset.type, rdata)}" for rdata in rrset.rdatas)


def rname(hostmaster: str) -> Name:
    """
    The mailbox *hostmaster* as a SOA names it: the local part is one label (RFC 1035, section 8).

    Raises `InvalidName` if it is not an e-mail address.
    """
    match = re.fullmatch(r"([!-?A-~]+)@([^@]*[^@.][^@]*)", hostmaster)
    if match is None:
        raise InvalidName(f'{hostmaster[:80]!r} is not an e-mail address: write it like "hostmaster@example.com"')
    return Name.from_labels([match[1].encode(), *Name.parse(match[2]).labels])


def soa_rdata(mname: Name, rname: Name, serial: int, refresh: int, retry: int, expire: int, minimum: int) -> bytes:
    """The rdata of a SOA, times in seconds (RFC 1035, section 3.3.13); dnslib would compress a name."""
    return mname.wire + rname.wire + struct.pack("!5I", serial, refresh, retry, expire, minimum)


@dataclass(frozen=True, slots=True)
class _Record:
    line: int
    owner: Name
    type: int
    ttl: int
    rdata: bytes

    def __str__(self) -> str:
        return f"{self.owner} {_type_text(self.type)}"


@dataclass(slots=True)
class _Reader:
    """What the lines so far mean for the next: origin, default TTL and last owner (RFC 1035, section 5.1)."""

    apex: Name
    origin: Name
    ttl: int
    owner: Name | None = None
    records: list[_Record] = field(default_factory=list)

    def read(self, line: int, words: list[str]) -> None:
        """Take in one entry. Raises `Invalid` with what is wrong with it."""
        for word in words:
            if not word.isascii():
                _fault(f"{word[:40]!r} is not ASCII: write such octets as \\DDD, and names in their xn-- form")
            if word in _BROKEN:
                _fault(_BROKEN[word])
        if words[0].startswith("$"):
            self._direct(*words)
            return
        owner = self._read_owner(words[0])
        ttl, (word, *rest) = self.ttl, [*words[1:], ""]
        for _ in range(2):  # TTL and class stand in either order, and each may be left out
            if _TTL.fullmatch(word):
                ttl, (word, *rest) = _parse_ttl(word), rest
            elif word.upper() in ("CH", "HS", "CS"):
                _fault(f"class {word.upper()} is not served: write IN")
            elif word.upper() == "IN":
                word, *rest = rest
        rrtype = _parse_type(word)
        _check_allowed(owner, rrtype, self.apex)
        rdata = _read_rdata(rrtype, rest[:-1], self.origin)
        self.records.append(_Record(line, owner, rrtype, ttl, rdata))

    def _direct(self, directive: str, *words: str) -> None:
        if directive == "$TTL" and len(words) == 1:
            self.ttl = _parse_ttl(words[0])
        elif directive == "$ORIGIN" and len(words) == 1:
            self.origin = _parse_name(words[0], self.origin)
        else:
            _fault(f"{directive} is not understood: only $TTL SECONDS and $ORIGIN NAME are")

    def _read_owner(self, word: str) -> Name:
        if word:
            self.owner = None  # should this be a bad name, the lines that continue it must not fall to another
            self.owner = _parse_name(word, self.origin)
        if self.owner is None:
            _fault("the line starts with a space, which stands for the owner above, but there is no good one")
        return self.owner


_TOKEN = re.compile(
    r"""  (?P<space>[ \t\r\f\v]+) | ;[^\n]* | (?P<newline>\n) | (?P<parenthesis>[()])
        | (?P<word> "(?:[^"\\\n]|\\[^\n])*" | (?:[^\s"();\\]|\\[^\n])+ | . )  # the dot takes what is broken
    """,
    re.VERBOSE | re.ASCII,
)
_BROKEN = {
    '"': "a quoted string does not end on its line: close it with a quote",
    "\\": "a backslash at the end of the line escapes nothing: remove it",
    "(": "a parenthesis is never closed: add the missing )",
    ")": "a parenthesis was never opened: remove the )",
}
_TTL = re.compile(r"(\d+)([smhdw]?)", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}
_ESCAPE = re.compile(rb"\\(?:([0-9]{3})|(.))", re.DOTALL)


def _entries(text: str) -> Iterator[tuple[int, list[str]]]:
    """The entries of *text*: number of the first line, and the words; a space before them is an empty one."""
    words: list[str] = []
    line, first, depth, at_start = 1, 1, 0, True
    for token in _TOKEN.finditer(f"{text}\n"):
        kind, word = token.lastgroup, token[0]
        if kind == "space" and at_start and not depth:
            words.append("")
        elif kind == "parenthesis" and (word == "(" or depth):
            depth += 1 if word == "(" else -1
        elif kind in ("word", "parenthesis"):
            words.append(word)
        at_start = kind == "newline"
        line += at_start
        if at_start and not depth:
            if any(words):
                yield first, words
            words, first = [], line
    if depth:
        yield first, [*words, "("]


def _fault(text: str) -> NoReturn:
    raise InvalidZone([text])


def _parse_name(word: str, origin: Name) -> Name:
    """*word* as a name: absolute with a trailing dot, else below *origin*, which a lone @ stands for."""
    if word == "@":
        return origin
    if word.startswith('"'):
        _fault(f"{word[:80]} is quoted: write names without quotes")
    absolute = re.sub(r"\\(\d{3}|.)", "", word).endswith(".")  # an escaped dot belongs to its label
    return Name.parse(word) if absolute else Name.parse(word).under(origin)


def _parse_ttl(word: str) -> int:
    match = _TTL.fullmatch(word)
    if match is None or len(word) > 20 or int(match[1]) * _UNITS[match[2].lower()] > MAX_TTL:
        _fault(f"{word[:40]!r} is not a TTL: write seconds, at most {MAX_TTL}, or a number with s, m, h, d or w")
    return int(match[1]) * _UNITS[match[2].lower()]


def _parse_type(word: str) -> int:
    name = word.upper()
    match = re.fullmatch(r"TYPE(\d{1,5})", name)  # RFC 3597, section 5
    number = int(match[1] if match else QTYPE.reverse.get(name, 0))
    if not 0 < number <= 0xFFFF:
        _fault(f"{word[:40]!r} is not a record type: write OWNER [TTL] [IN] TYPE DATA")
    return number


def _type_text(rrtype: int) -> str:
    return _NAMES.get(rrtype) or f"TYPE{rrtype}"


def _octets(word: str) -> bytes:
    """A word, quoted or not, with its escapes undone. Raises `ValueError` if one is more than an octet."""
    bare = word[1:-1] if word.startswith('"') else word
    return _ESCAPE.sub(lambda match: bytes((int(match[1]),)) if match[1] else match[2], bare.encode())


def _check_allowed(owner: Name, rrtype: int, apex: Name) -> None:
    """Refuse what may be well-formed, but has no place among static records."""
    if not owner.is_within(apex):
        _fault(f"{owner} is outside the zone {apex}: remove it, or the dot that makes the name absolute")
    if b"*" in owner.labels:
        _fault(f"{owner}: wildcards are not supported: write out each name")
    if rrtype == RRType.SOA:
        _fault("the SOA comes from the settings of the zone: remove this record")
    if rrtype == RRType.NS and owner == apex:
        _fault("the NS records come from the nameservers in the settings of the zone: remove this record")
    if rrtype in (RRType.NS, RRType.DNAME):
        _fault(f"{owner}: this server delegates nothing: remove the {QTYPE.get(rrtype)} record")
    if rrtype == RRType.CNAME and owner == apex:
        _fault("a CNAME cannot stand beside the SOA and NS of the zone: write addresses instead")
    if rrtype == RRType.CNAME and owner.labels[:1] == [b"_acme-challenge"]:
        _fault(f"{owner}: a CNAME would hide the values of tokens minted for it: remove it")
    if rrtype in _DNSSEC:
        _fault(f"{owner}: static records are not signed: remove the {QTYPE.get(rrtype)} record")
    if rrtype == RRType.OPT or RRType.NXNAME <= rrtype <= RRType.ANY:  # RFC 6895, section 3.1
        _fault(f"{owner}: type {rrtype} is for queries, not for records: remove it")


def _inconsistencies(records: list[_Record]) -> list[str]:
    """Faults that only several records together make."""
    faults = []
    firsts: dict[tuple[Name, int], _Record] = {}
    sizes: dict[tuple[Name, int], int] = {}
    for record in records:
        key = record.owner, record.type
        first = firsts.setdefault(key, record)
        sizes[key] = sizes.get(key, 0) + len(record.rdata)
        if record.ttl != first.ttl:
            faults.append(
                f"line {record.line}: {record} has TTL {record.ttl}, but {first.ttl} in line {first.line}: "
                "records of one name and type share their TTL (RFC 2181, section 5.2)"
            )
        if record.type == RRType.CNAME and record.rdata != first.rdata:
            faults.append(f"line {record.line}: {record.owner} has another CNAME in line {first.line}: keep one")
    for (owner, _), record in firsts.items():
        cname = firsts.get((owner, RRType.CNAME), record)
        if cname is not record:
            faults.append(
                f"line {record.line}: {record} stands beside the CNAME of line {cname.line}: "
                "a CNAME must be alone at its name (RFC 1034, section 3.6.2)"
            )
    for key, size in sizes.items():
        if size > MAX_RDATA:
            faults.append(f"line {firsts[key].line}: {firsts[key]} has over {MAX_RDATA} octets of data: shorten it")
    return faults


def _group(records: list[_Record]) -> tuple[RRset, ...]:
    """RRsets in the order of their first records; a record written twice is one (RFC 2181, section 5)."""
    groups: dict[tuple[Name, int, int], dict[bytes, None]] = {}
    for record in records:
        groups.setdefault((record.owner, record.type, record.ttl), {})[record.rdata] = None
    return tuple(RRset(owner, rrtype, ttl, tuple(rdatas)) for (owner, rrtype, ttl), rdatas in groups.items())


_FORMS = {
    "A": ("IPV4", "192.0.2.1"),
    "NS": ("NAME", "ns1.example.net."),
    "CNAME": ("NAME", "www.example.net."),
    "SOA": (
        "NAME NAME U32 U32 U32 U32 U32",
        "ns1.example.net. hostmaster.example.net. 1 14400 3600 1209600 5",
    ),
    "PTR": ("NAME", "www.example.net."),
    "MX": ("U16 NAME", "10 mail.example.net."),
    "TXT": ("TEXT...", '"some text"'),
    "AAAA": ("IPV6", "2001:db8::1"),
    "SRV": ("U16 U16 U16 NAME", "0 0 443 www.example.net."),
    "SSHFP": ("U8 U8 HEX...", "4 2 123456789abcdef0"),
    "TLSA": ("U8 U8 U8 HEX...", "3 1 1 123456789abcdef0"),
    "CAA": ("U8 TAG OCTETS", '0 issue "example.net"'),
}
"""The types with a text form here: their fields in order, and an example for people."""

_NAMES = {int(QTYPE.reverse[name]): name for name in _FORMS}
_DNSSEC = frozenset({24, 25, 43, 46, 47, 48, 50, 51, 59, 60})
_ROOT = Name(b"\0")


def _read_rdata(rrtype: int, words: list[str], origin: Name) -> bytes:
    """Rdata from its *words*, in the form of its type or in that of RFC 3597, section 5."""
    if words[:1] == [r"\#"]:
        return _read_generic(rrtype, words[1:])
    if rrtype not in _NAMES:
        _fault(rf"this type has no text form here: write TYPE{rrtype} \# LENGTH HEX (RFC 3597)")
    name = _NAMES[rrtype]
    form, example = _FORMS[name]
    kinds = form.split()
    if kinds[-1].endswith("..."):
        kinds += kinds[-1:] * (len(words) - len(kinds))
    if len(words) != len(kinds):
        _fault(f"{name} does not take {len(words)} fields: write it like {name} {example}")
    try:
        return b"".join(_read_field(kind, word, origin) for kind, word in zip(kinds, words, strict=True))
    except (ValueError, OverflowError):
        _fault(f"the data of this {name} is malformed: write it like {name} {example}")


def _read_generic(rrtype: int, words: list[str]) -> bytes:
    try:
        length, rdata = int(words[0]), bytes.fromhex("".join(words[1:]))
    except (IndexError, ValueError):
        _fault(r"data of any type is written \# LENGTH HEX (RFC 3597)")
    if length != len(rdata):
        _fault(f"{length} octets of data are announced, but {len(rdata)} follow")
    name = _NAMES.get(rrtype)
    if name and _print_rdata(rrtype, rdata).startswith(r"\#"):
        _fault(f"these octets are not the data of this type: write it like {name} {_FORMS[name][1]}")
    return rdata


def _read_field(kind: str, word: str, origin: Name) -> bytes:
    """One field of rdata. Raises `Invalid`, or else `ValueError` or `OverflowError`."""
    match kind:
        case "NAME":
            return _parse_name(word, origin).wire
        case "IPV4":
            return IPv4Address(word).packed
        case "IPV6":
            return IPv6Address(word.replace("%", "no scope here")).packed
        case "HEX...":
            return bytes.fromhex(word)
        case "OCTETS":
            return _octets(word)
        case "TEXT...":  # longer text goes on in further character-strings (RFC 1035, section 3.3.14)
            octets = _octets(word)
            return b"".join(_counted(octets[at : at + 255]) for at in range(0, len(octets) or 1, 255))
        case "TAG":
            return _counted(word.lower().encode() if word.isalnum() else bytes(256))  # RFC 8659, section 4.1
        case _:
            return int(word if word.isdigit() else "").to_bytes(int(kind[1:]) // 8, "big")


def _counted(octets: bytes) -> bytes:
    """A character-string: its length in one octet, and its octets. Raises `ValueError` if there are over 255."""
    return bytes((len(octets),)) + octets


def _print_rdata(rrtype: int, rdata: bytes) -> str:
    """Rdata in the form of its type if that reads back as the same octets, else as RFC 3597, section 5."""
    try:
        text = _print_known(rrtype, rdata)
        [(_, words)] = _entries(text)
        if _read_rdata(rrtype, words, _ROOT) == rdata:
            return text
    except (DNSError, ValueError, Invalid, KeyError):
        pass  # not what its type demands, or no type that we know: only its octets are certain
    return rf"\# {len(rdata)} {rdata.hex()}".rstrip()


def _print_known(rrtype: int, rdata: bytes) -> str:
    """Rdata as dnslib prints it, but for names and strings in which dnslib leaves out escapes."""
    record: Any = RDMAP[_NAMES[rrtype]].parse(DNSBuffer(rdata), len(rdata))
    match rrtype:
        case RRType.TXT:
            return " ".join(f'"{_escape(string)}"' for string in record.data)
        case RRType.SOA:
            names = [Name.from_labels(list(label.label)).fqdn for label in (record.mname, record.rname)]
            return " ".join([*names, *map(str, record.times)])
        case _:
            return str(record.toZone())


def _escape(octets: bytes) -> str:
    return "".join(
        f"\\{octet:03d}" if not 0x20 <= octet < 0x7F else f"\\{chr(octet)}" if octet in b'"\\' else chr(octet)
        for octet in octets
    )
