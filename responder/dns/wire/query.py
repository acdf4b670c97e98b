"""
Bytes to `Query`: which messages are answered, and where in them things are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from responder.dns.rrset import CLASS_ANY, CLASS_IN, RRType
from responder.dns.wire.edns import NO_EDNS, OPT_HEAD, Edns, parse_opt
from responder.dns.wire.header import HEAD, HEADER, OPCODE, RD, RECORD, Opcode, Rcode, header_only
from responder.names import MAX_LABEL, MAX_NAME

MAX_SIGNED = 4096
"""Octets of a message in which a signature is looked for, or an OPT behind other records: an update of 30 values, and
0.3 ms at most."""


@dataclass(frozen=True, slots=True)
class Query:
    """
    A message with one question: a query, well-formed but for what `edns.fault` names, a NOTIFY, or a DNS update as far
    as its zone section.

    *question* is as it came, letter case included; *qname* is its name in lower case; *tsig* the octet that the
    signature begins at, 0 if there is none. *question* is empty if there is none: then the query is for a cookie.
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

    @property
    def echo(self) -> bytes:
        """The question as it comes back. What is no zone section does not: clients could not read the reply."""
        if self.opcode == Opcode.UPDATE and (self.qtype, self.qclass) != (RRType.SOA, CLASS_IN):
            return b""
        return self.question


def parse(packet: bytes) -> Query | bytes | None:
    """
    Read a message: a `Query`, the reply to send at once to one that has no question to answer, or None for silence.

    Parsing costs little for any packet: one question, no pointers in its name, at most one OPT. Trailing octets are
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
    opt, tsig, fault = _find_opt_and_tsig(packet, end + 4, ancount + nscount, arcount)
    edns = parse_opt(packet, opt) if opt else NO_EDNS
    fault = fault or edns.fault
    question, qname, desired = packet[HEADER : end + 4], packet[HEADER:end].lower(), False
    if opcode == Opcode.QUERY:
        desired = bool(flags & RD)  # other opcodes may give the bit another meaning
        fault = fault or _fault(qtype, ancount, nscount, arcount - bool(opt) - bool(tsig))
    edns = replace(edns, fault=fault) if fault else edns
    return Query(packet[:2], desired, opcode, question, qname, qtype, qclass, edns, tsig)


def _fault(qtype: int, ancount: int, nscount: int, unknown: int) -> str:
    """What is wrong with the sections of a query; *unknown* are its additional records but for an OPT and a TSIG."""
    if unknown:
        return "only one OPT record and a signature may follow a query"
    if (ancount or nscount) and (ancount, nscount, qtype) != (0, 1, RRType.IXFR):  # which has a SOA (RFC 1995, 3)
        return "a query must have no answer or authority records"
    return ""


_TYPE_CLASS = struct.Struct("!HH")
_TSIG = RRType.TSIG.to_bytes(2, "big")
_TSIG_HEAD = struct.pack("!HHI", RRType.TSIG, CLASS_ANY, 0)
"""Type, class and TTL of a signature: no others are valid (RFC 8945, section 4.2)."""


def _parse_cookie_request(packet: bytes) -> Query | bytes:
    """A query without a question, whose only wish is a cookie (RFC 7873, section 5.4)."""
    edns = parse_opt(packet, HEADER)
    if not edns.opt:
        return header_only(packet, Rcode.FORMERR)
    if not edns.cookie:
        edns = replace(edns, fault=edns.fault or "a query without a question must ask for a DNS cookie")
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


def _read_record(packet: bytes, at: int) -> tuple[int, int]:
    """
    Where the type of the record at octet *at* is, and where the record ends by its own account; behind the end of the
    packet if it is cut off.
    """
    size = len(packet)
    while at < size and 0 < packet[at] <= MAX_LABEL:
        at += 1 + packet[at]
    end = packet[at : at + 1]
    if b"\0" < end < b"\xc0":  # neither the end of a name nor a pointer, which is one wherever it points
        return size, size + 1
    at += 1 if end == b"\0" else 2
    if at + RECORD.size > size:
        return size, size + 1
    return at, at + RECORD.size + int.from_bytes(packet[at + 8 : at + 10], "big")


def _find_opt_and_tsig(packet: bytes, at: int, before: int, additional: int) -> tuple[int, int, str]:
    """
    Where the OPT and the TSIG of a message begin, 0 for one that is not found, and what is wrong with the latter. At
    octet *at* begin its records: that many *before* the additional section, and those in it.

    The signature is the last record (RFC 8945, section 5.1). Nothing in front of it is read but its type and where it
    ends: a client that cannot sign must not make us.
    """
    opt = at if additional and not before and packet.startswith(OPT_HEAD, at) else 0
    if not additional or (opt and additional == 1) or len(packet) > MAX_SIGNED:
        return opt, 0, ""
    signatures = start = head = 0
    for number in range(before + additional):
        start = at
        head, at = _read_record(packet, start)
        if at > len(packet):
            return opt, 0, "a record is cut short"
        signatures += packet.startswith(_TSIG, head)
        if not opt and number >= before and packet.startswith(OPT_HEAD, start):
            opt = start
    if not signatures:
        return opt, 0, ""
    if signatures > 1 or not packet.startswith(_TSIG, head):
        return opt, 0, "a TSIG record must be the last record, and the only one of its kind"
    if _skip_name(packet, start) != head or not packet.startswith(_TSIG_HEAD, head):
        return opt, 0, "a TSIG record must have class ANY, TTL 0, and a name that is not compressed"
    return opt, start, ""
