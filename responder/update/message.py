"""
Reads an update: its prerequisites and its changes, checked for form (RFC 2136, sections 3.2 and 3.4.1).

Only messages with a valid signature come here. `steps` decides what they may do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import dns.exception
import dns.name

from responder.dns.rrset import CLASS_ANY, CLASS_IN, CLASS_NONE, RRType
from responder.dns.wire import HEADER, Query
from responder.errors import InvalidName, InvalidUpdate, OutsideZone
from responder.names import Name

MAX_RECORDS = 40
"""
Prerequisites and changes of one update. A legitimate update has a few, and 30 full values fill a packet. A packet has
room for ten times as many deletions or short values. Each would be an event in the audit, and the presents of all
clients would wait for them.
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an update. *type* and *rclass* have special meanings (RFC 2136, sections 2.4 and 2.5)."""

    name: Name
    type: int
    rclass: int
    ttl: int
    rdata: bytes


@dataclass(frozen=True, slots=True)
class UpdateMessage:
    """A well-formed update."""

    prerequisites: tuple[Record, ...]
    changes: tuple[Record, ...]


def read(packet: bytes, query: Query) -> UpdateMessage:
    """The update in *packet*, whose zone section is *query*. Raises `InvalidUpdate` or `OutsideZone`."""
    prerequisites, changes = _read_sections(packet, query)
    apex = Name(query.qname)
    for record in prerequisites:
        _check_prerequisite(record, apex)
    for record in changes:
        _check_change(record, apex)
    return UpdateMessage(tuple(prerequisites), tuple(changes))


def _read_sections(packet: bytes, query: Query) -> tuple[list[Record], list[Record]]:
    """The two sections after the zone section. Records between them and the signature are ignored."""
    prerequisites, changes = _COUNTS.unpack_from(packet, 6)
    if prerequisites + changes > MAX_RECORDS:
        raise InvalidUpdate(f"the update has more than {MAX_RECORDS} prerequisites and changes: send several updates")
    unsigned = packet[: query.tsig]
    at = HEADER + len(query.question)
    sections: tuple[list[Record], list[Record]] = [], []
    for section, count in zip(sections, (prerequisites, changes), strict=True):
        for _ in range(count):
            record, at = _read_record(unsigned, at)
            section.append(record)
    return sections


def _read_record(packet: bytes, at: int) -> tuple[Record, int]:
    """The record at octet *at*, and the octet after its end."""
    try:
        name, length = dns.name.from_wire(packet, at)
        owner = Name.from_labels([*name.labels[:-1]])
        rrtype, rclass, ttl, size = _FIXED.unpack_from(packet, at + length)
    except (dns.exception.DNSException, InvalidName, struct.error):
        raise InvalidUpdate("a record of the update is malformed") from None
    start = at + length + _FIXED.size
    return Record(owner, rrtype, rclass, ttl, packet[start : start + size]), start + size


def _check_prerequisite(record: Record, apex: Name) -> None:
    _check_zone(record, apex)
    if record.ttl or record.rclass not in (CLASS_ANY, CLASS_NONE, CLASS_IN):
        raise InvalidUpdate("a prerequisite has a TTL or an invalid class: use TTL 0 and class ANY, NONE or IN")
    if (record.rclass == CLASS_IN) is not bool(record.rdata):
        raise InvalidUpdate("a prerequisite has data with class ANY or NONE, or lacks data with class IN")
    if record.type in _META_TYPES - ({RRType.ANY} if record.rclass != CLASS_IN else set()):
        raise InvalidUpdate("a prerequisite has a type that records cannot have")
    if record.type == RRType.TXT and record.rclass == CLASS_IN:
        strings(record.rdata)


def _check_change(record: Record, apex: Name) -> None:
    _check_zone(record, apex)
    if record.rclass not in (CLASS_ANY, CLASS_NONE, CLASS_IN):
        raise InvalidUpdate("a change has an invalid class: use class ANY, NONE or IN")
    if record.rclass != CLASS_IN and record.ttl:
        raise InvalidUpdate("a deletion has a TTL: use TTL 0")
    if record.rclass == CLASS_ANY and record.rdata:
        raise InvalidUpdate("a deletion of all records has data: use class NONE to delete one record")
    if record.type in _META_TYPES - ({RRType.ANY} if record.rclass == CLASS_ANY else set()):
        raise InvalidUpdate("a change has a type that records cannot have")
    if record.type == RRType.TXT and record.rclass != CLASS_ANY:
        strings(record.rdata)


def _check_zone(record: Record, apex: Name) -> None:
    if not record.name.is_within(apex):
        raise OutsideZone(f"{record.name} is not in {apex}, the zone of the update")


def strings(rdata: bytes) -> list[bytes]:
    """The character-strings of a TXT record. Raises `InvalidUpdate` unless *rdata* is one or more of them."""
    found, at = [], 0
    while at < len(rdata):
        end = at + 1 + rdata[at]
        found.append(rdata[at + 1 : end])
        at = end
    if not found or at != len(rdata):
        raise InvalidUpdate("a TXT record of the update is malformed")
    return found


_COUNTS = struct.Struct("!HH")
_FIXED = struct.Struct("!HHIH")

_META_TYPES = {0, RRType.OPT, *range(128, 256)}
"""Types that only questions and messages have, and never the records of a zone (RFC 6895, section 3.1)."""
