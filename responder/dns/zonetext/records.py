"""Reading the lines of zone text to RRsets, and which records a zone may have."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from dnslib.dns import QTYPE

from responder.dns.rrset import MAX_RRSET, RRset, RRType
from responder.dns.zonetext.rdata import parse_type, print_rdata, read_rdata, type_text
from responder.dns.zonetext.words import check, entries, parse_name, refuse
from responder.errors import Invalid, InvalidName, InvalidZone
from responder.names import Name

MAX_TTL = (1 << 31) - 1
"""Seconds (RFC 2181, section 8)."""


def parse_records(text: str, apex: Name, *, default_ttl: int) -> tuple[RRset, ...]:
    """
    Read the static records of the zone *apex*. Names are relative to it, and *default_ttl* is in seconds.

    Raises `InvalidZone` with all faults and their line numbers, those of single lines first.
    """
    reader = _Reader(apex, origin=apex, ttl=default_ttl)
    faults = []
    for line, words in entries(text):
        try:
            reader.read(line, words)
        except Invalid as fault:
            faults.append(f"line {line}: {fault}")
    rrsets = _group(reader.records)
    faults += [*_inconsistencies(reader.records), *_oversized(rrsets, reader.records)]
    if faults:
        raise InvalidZone(faults)
    return rrsets


def print_rrset(rrset: RRset) -> str:
    """Zone text of *rrset*: one line for each record, with absolute owner, TTL, class, type and rdata."""
    head = f"{rrset.owner.fqdn} {rrset.ttl} IN {type_text(rrset.type)}"
    return "\n".join(f"{head} {print_rdata(rrset.type, rdata)}" for rdata in rrset.rdatas)


def rname(hostmaster: str) -> Name:
    """
    The mailbox *hostmaster* as a name for a SOA: the local part is one label (RFC 1035, section 8).

    Raises `InvalidName` if it is not an e-mail address.
    """
    match = re.fullmatch(r"([!-?A-~]+)@([^@]*[^@.][^@]*)", hostmaster)
    if match is None:
        raise InvalidName(f'{hostmaster[:80]!r} is not an e-mail address: write it like "hostmaster@example.com"')
    return Name.from_labels([match[1].encode(), *Name.parse(match[2]).labels])


def soa_rdata(mname: Name, rname: Name, serial: int, refresh: int, retry: int, expire: int, minimum: int) -> bytes:
    """The rdata of a SOA, with times in seconds (RFC 1035, section 3.3.13). dnslib would compress a name."""
    return mname.wire + rname.wire + struct.pack("!5I", serial, refresh, retry, expire, minimum)


@dataclass(frozen=True, slots=True)
class _Record:
    line: int
    owner: Name
    type: int
    ttl: int
    rdata: bytes

    def __str__(self) -> str:
        return f"{self.owner} {type_text(self.type)}"


@dataclass(slots=True)
class _Reader:
    """The records so far, and what the next line inherits: origin, default TTL, owner (RFC 1035, section 5.1)."""

    apex: Name
    origin: Name
    ttl: int
    owner: Name | None = None
    records: list[_Record] = field(default_factory=list)

    def read(self, line: int, words: list[str]) -> None:
        """Read one entry. Raises `Invalid` with what is wrong with it."""
        check(words)
        if words[0].startswith("$"):
            self._direct(*words)
            return
        owner = self._read_owner(words[0])
        ttl, (word, *rest) = self.ttl, [*words[1:], ""]
        for _ in range(2):  # TTL and class may come in either order, and may be missing
            if _TTL.fullmatch(word):
                ttl, (word, *rest) = _parse_ttl(word), rest
            elif word.upper() in ("CH", "HS", "CS"):
                refuse(f"class {word.upper()} is not served: write IN")
            elif word.upper() == "IN":
                word, *rest = rest
        rrtype = parse_type(word)
        _check_allowed(owner, rrtype, self.apex)
        rdata = read_rdata(rrtype, rest[:-1], self.origin)
        self.records.append(_Record(line, owner, rrtype, ttl, rdata))

    def _direct(self, directive: str, *words: str) -> None:
        if directive == "$TTL" and len(words) == 1:
            self.ttl = _parse_ttl(words[0])
        elif directive == "$ORIGIN" and len(words) == 1:
            self.origin = parse_name(words[0], self.origin)
        else:
            refuse(f"{directive} is not supported: write $TTL SECONDS or $ORIGIN NAME")

    def _read_owner(self, word: str) -> Name:
        if word:
            self.owner = None  # if the name is invalid, the lines after it must not get an earlier owner
            self.owner = parse_name(word, self.origin)
        if self.owner is None:
            refuse("the line starts with a space, so it has the owner of the line above, but that has no valid owner")
        return self.owner


_TTL = re.compile(r"(\d+)([smhdw]?)", re.IGNORECASE | re.ASCII)

UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds of the units in which times are written, in zone text and in settings."""


def _parse_ttl(word: str) -> int:
    match = _TTL.fullmatch(word)
    if match is None or len(word) > 20 or int(match[1]) * UNITS[match[2].lower()] > MAX_TTL:
        refuse(f"{word[:40]!r} is not a TTL: write seconds, at most {MAX_TTL}, or a number with s, m, h, d or w")
    return int(match[1]) * UNITS[match[2].lower()]


def _check_allowed(owner: Name, rrtype: int, apex: Name) -> None:
    """Refuse well-formed records that are not allowed among static records."""
    if not owner.is_within(apex):
        refuse(f"{owner} is outside the zone {apex}: remove it, or the dot that makes the name absolute")
    if b"*" in owner.labels:
        refuse(f"{owner}: wildcards are not supported: write out each name")
    if rrtype == RRType.SOA:
        refuse("the SOA comes from the settings of the zone: remove this record")
    if rrtype == RRType.NS and owner == apex:
        refuse("the NS records come from the nameservers in the settings of the zone: remove this record")
    if rrtype in (RRType.NS, RRType.DNAME):
        refuse(f"{owner}: delegations are not supported: remove the {QTYPE.get(rrtype)} record")
    if rrtype == RRType.CNAME and owner == apex:
        refuse("a CNAME is not allowed at the apex, which has a SOA and NS records: write addresses instead")
    if rrtype == RRType.CNAME and owner.labels[:1] == [b"_acme-challenge"]:
        refuse(f"{owner}: a CNAME would hide the values of tokens minted for it: remove it")
    if rrtype in _DNSSEC:
        refuse(f"{owner}: static records are not signed: remove the {QTYPE.get(rrtype)} record")
    if rrtype == RRType.OPT or RRType.NXNAME <= rrtype <= RRType.ANY:  # RFC 6895, section 3.1
        refuse(f"{owner}: type {rrtype} is for queries, not for records: remove it")


_DNSSEC = frozenset({24, 25, 43, 46, 47, 48, 50, 51, 59, 60})


def _inconsistencies(records: list[_Record]) -> list[str]:
    """Faults of records that contradict each other."""
    faults = []
    firsts: dict[tuple[Name, int], _Record] = {}
    for record in records:
        key = record.owner, record.type
        first = firsts.setdefault(key, record)
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
                f"line {record.line}: {record} is at the same name as the CNAME in line {cname.line}: "
                "a name with a CNAME has no other records (RFC 1034, section 3.6.2)"
            )
    return faults


def _oversized(rrsets: tuple[RRset, ...], records: list[_Record]) -> Iterator[str]:
    """Faults of RRsets that are too long for any reply."""
    for rrset in rrsets:
        if rrset.octets > MAX_RRSET:
            first = next(record for record in records if (record.owner, record.type) == (rrset.owner, rrset.type))
            size = f"needs {rrset.octets} octets in a reply, but at most {MAX_RRSET} fit"
            yield f"line {first.line}: {first} {size}: remove records, or use several names"


def _group(records: list[_Record]) -> tuple[RRset, ...]:
    """RRsets in the order of their first records. A repeated record counts once (RFC 2181, section 5)."""
    groups: dict[tuple[Name, int, int], dict[bytes, None]] = {}
    for record in records:
        groups.setdefault((record.owner, record.type, record.ttl), {})[record.rdata] = None
    return tuple(RRset(owner, rrtype, ttl, tuple(rdatas)) for (owner, rrtype, ttl), rdatas in groups.items())
