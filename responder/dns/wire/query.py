"""
Bytes to `Query`: which messages are answered, and where in them things are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from responder.dns.rrset import CLASS_ANY, CLASS_IN, RRType
from responder.dns.wire.edns import NO_EDNS, Edns, parse_additional
from responder.dns.wire.header import HEAD, HEADER, OPCODE, RD, RECORD, Opcode, Rcode, header_only
from responder.names import MAX_LABEL, MAX_NAME

MAX_SIGNED = 4096
"""Octets of a message in which a signature is looked for: an update of 30 values, and 0.3 ms whatever comes."""


@dataclass(frozen=True, slots=True)
class Query:
    """
    A well-formed query, or a DNS update as far as its zone section. *question* is as it came, letter case included;
    *qname* is its name in lower case; *tsig* the octet that the signature begins at, 0 if there is none.
    """

    id: bytes
    recursion_desired: bool
    opcode: int
    question: bytes
    qname: bytes
    qtype: int
    qclass: int
    edns: Edns
    tsig: int = 0


def parse(packet: bytes) -> Query | bytes | None:
    """
    Read a message: a `Query` to answer, the reply to send at once to a faulty one, or None for silence.

    Parsing costs little whatever comes: one question, no pointers in its name, at most one OPT. Trailing octets are
    ignored, as NSD and BIND do.
    """
    if len(packet) < HEADER or packet[2] & 0x80:  # a response: answering it could make two servers talk for ever
        return None
    flags, qdcount, ancount, nscount, arcount = HEAD.unpack_from(packet, 2)
    opcode = (flags & OPCODE) >> 11
    if opcode not in (Opcode.QUERY, Opcode.NOTIFY, Opcode.UPDATE):
        return header_only(packet, Rcode.NOTIMP)
    if qdcount == 0 and opcode == Opcode.QUERY and arcount == 1 and not ancount and not nscount:
        return _parse_cookie_request(packet)
    end = _skip_name(packet)
    if qdcount != 1 or end is None or len(packet) < end + 4:  # RFC 9619: exactly one question
        return header_only(packet, Rcode.FORMERR)
    qtype, qclass = _TYPE_CLASS.unpack_from(packet, end)
    qname = packet[HEADER:end].lower()
    edns: Edns | Rcode = NO_EDNS
    at, tsig = end + 4, 0
    if opcode == Opcode.QUERY:
        if qtype == RRType.IXFR and nscount == 1:  # the SOA that the client has (RFC 1995, section 3)
            at, nscount = _skip_record(packet, at), 0
        tsig = _find_tsig(packet, at, arcount) if arcount <= 2 else 0
        edns = Rcode.FORMERR if ancount or nscount else parse_additional(packet, at, arcount - bool(tsig))
    elif opcode == Opcode.UPDATE and arcount:
        tsig = _find_tsig(packet, at, ancount + nscount + arcount)
    if isinstance(edns, Rcode):
        return header_only(packet, edns)
    return Query(packet[:2], bool(flags & RD), opcode, packet[HEADER : end + 4], qname, qtype, qclass, edns, tsig)


_TYPE_CLASS = struct.Struct("!HH")
_TSIG = _TYPE_CLASS.pack(RRType.TSIG, CLASS_ANY)


def _parse_cookie_request(packet: bytes) -> Query | bytes:
    """A query without a question, whose only wish is a cookie (RFC 7873, section 5.4)."""
    edns = parse_additional(packet, HEADER, 1)
    if isinstance(edns, Rcode) or not edns.cookie:
        return header_only(packet, Rcode.FORMERR)
    return Query(packet[:2], bool(packet[2] & 1), Opcode.QUERY, b"", b"", 0, CLASS_IN, edns)


def _skip_name(packet: bytes, start: int = HEADER) -> int | None:
    """Where the name at octet *start* ends; None if it is cut off, too long, or holds anything but plain labels."""
    at = start
    size = len(packet)
    while at < size and at - start < MAX_NAME:
        length = packet[at]
        at += 1 + length
        if not length:
            return at
        if length > MAX_LABEL:  # a pointer could only point forward or into the header (RFC 1035, section 4.1.4)
            return None
    return None


def _skip_record(packet: bytes, at: int) -> int:
    """Where the record at octet *at* ends, as far as it says; behind the end of the packet if it is cut off."""
    size = len(packet)
    while at < size and 0 < packet[at] <= MAX_LABEL:
        at += 1 + packet[at]
    end = packet[at : at + 1]
    if b"\0" < end < b"\xc0":  # neither the end of a name nor a pointer, which is one wherever it points
        return size + 1
    at += 1 if end == b"\0" else 2
    if at + RECORD.size > size:
        return size + 1
    return at + RECORD.size + int.from_bytes(packet[at + 8 : at + 10], "big")


def _find_tsig(packet: bytes, at: int, records: int) -> int:
    """
    Where the TSIG begins that is the last of so many *records* from octet *at* on (RFC 8945, section 5.1); else 0.

    Nothing in front of it is read: whoever cannot sign shall not make us.
    """
    if not records or len(packet) > MAX_SIGNED:
        return 0
    last = at
    for _ in range(records):
        last, at = at, _skip_record(packet, at)
        if at > len(packet):
            return 0
    end = _skip_name(packet, last)
    return last if end is not None and packet[end : end + 4] == _TSIG else 0
