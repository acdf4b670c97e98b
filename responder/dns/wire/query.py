"""
Parsing: from the octets of a message to a `Query`, and which messages get a reply.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from responder.dns.rrset import CLASS_ANY, CLASS_IN, RRType
from responder.dns.wire.edns import NO_EDNS, OPT_HEAD, Edns, parse_opt
from responder.dns.wire.header import HEAD, HEADER, OPCODE, RD, RECORD, Opcode, Rcode, header_only
from responder.names import MAX_LABEL, MAX_NAME

MAX_SIGNED = 4096
"""A signature, or an OPT after other records, is looked for only in messages up to this number of octets. This is
enough for an update of 30 values, and takes 0.3 ms at most."""


@dataclass(frozen=True, slots=True)
class Query:
    """
    A message with one question: a query, a NOTIFY, or a DNS update, of which only the zone section is read.

    It is well-formed, except for the reason in `edns.fault` if there is one. *question* is as it came, letter case
    included; it is empty for a query that only asks for a cookie. *qname* is the name in the question, in lower case.
    *tsig* is the octet at which the signature begins, 0 if there is none.
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
        """The question as it is repeated in the reply. An invalid zone section is not: clients could not read that."""
        if self.opcode == Opcode.UPDATE and (self.qtype, self.qclass) != (RRType.SOA, CLASS_IN):
            return b""
        return self.question


def parse(packet: bytes) -> Query | bytes | None:
    """
    Read a message. Returns a `Query`; or the reply to a message whose question cannot be read; or None for silence.

    No packet takes long: there is one question, no pointer in its name, and at most one OPT. Octets after the last
    record are ignored, as in NSD and BIND.
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
    """
    What is wrong with the sections of a query. *unknown* is the number of additional records besides OPT and TSIG.
    """
    if unknown:
        return "only one OPT record and a signature may follow a query"
    if (ancount or nscount) and (ancount, nscount, qtype) != (0, 1, RRType.IXFR):  # IXFR has a SOA (RFC 1995, 3)
        return "a query must have no answer or authority records"
    return ""


_TYPE_CLASS = struct.Struct("!HH")
_TSIG = RRType.TSIG.to_bytes(2, "big")
_TSIG_HEAD = struct.pack("!HHI", RRType.TSIG, CLASS_ANY, 0)
"""Type, class and TTL that a signature must have (RFC 8945, section 4.2)."""


def _parse_cookie_request(packet: bytes) -> Query | bytes:
    """A query without a question, which only asks for a cookie (RFC 7873, section 5.4)."""
    edns = parse_opt(packet, HEADER)
    if not edns.opt:
        return header_only(packet, Rcode.FORMERR)
    if not edns.cookie:
        edns = replace(edns, fault=edns.fault or "a query without a question must ask for a DNS cookie")
    return Query(packet[:2], bool(packet[2] & 1), Opcode.QUERY, b"", b"", 0, CLASS_IN, edns)


def _skip_name(packet: bytes, start: int = HEADER) -> int | None:
    """Where the name at octet *start* ends; None if it is cut off, too long, or has a pointer."""
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
    Where the type of the record at octet *at* is, and where the record ends according to its length field. Both are
    after the end of the packet if the record is cut off.
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
    Where the OPT and the TSIG of a message begin (0 if there is none), and what is wrong with the TSIG.

    The records begin at octet *at*: the number *before* the additional section, and the *additional* ones. The
    signature is the last record (RFC 8945, section 5.1). Of the records in front of it, only type and length are read,
    so that a client without a key cannot cause more work.
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
