"""
Messages: bytes to `Query`, `Answer` to bytes. The only home of header bits, EDNS and truncation (RFC 1035, 6891).

An `Answer` is compiled once, when the records behind it change: everything that follows the question, with owner
names compressed against it. `render` then only puts pieces together. Nothing here knows zones, sockets or clients.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum

from responder.names import MAX_LABEL, MAX_NAME, is_label_start, name_end
from responder.rrset import CLASS_ANY, CLASS_IN, RRset, RRType

HEADER = 12
"""Octets of the header; the question's name starts right behind it (RFC 1035, section 4.1.1)."""

UDP_CEILING = 1232
"""Octets of the largest UDP reply we send: fits the smallest IPv6 MTU, so never a fragment (RFC 9715)."""

UDP_FLOOR = 512
"""Octets every client takes; smaller EDNS sizes count as this (RFC 6891, section 6.2.3)."""

TCP_CEILING = 65_535
"""Octets the two-octet length prefix can announce (RFC 1035, section 4.2.2)."""

MAX_SIGNED = 4096
"""Octets of a message in which a signature is looked for: an update of 30 values, and 0.3 ms whatever comes."""

MAX_OPTIONS = 64
"""EDNS options read in one query. There are not that many to send, but 64 KiB would hold 16,000."""

QR, AA, TC, RD = 0x8000, 0x0400, 0x0200, 0x0100
DO = 0x8000
_OPCODE = 0x7800


class Transport(Enum):
    """How a message came, which decides how long its reply may be."""

    UDP = "udp"
    TCP = "tcp"


class Opcode(IntEnum):
    """RFC 6895, section 2.2; those that need telling apart."""

    QUERY = 0
    NOTIFY = 4
    UPDATE = 5


class Rcode(IntEnum):
    """RFC 6895, section 2.3; those that this server sends."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    YXDOMAIN = 6
    YXRRSET = 7
    NXRRSET = 8
    NOTAUTH = 9
    NOTZONE = 10
    BADVERS = 16


class ExtendedError(IntEnum):
    """RFC 8914, section 4; those that this server sends."""

    PROHIBITED = 18
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    INVALID_QUERY_TYPE = 30


@dataclass(frozen=True, slots=True)
class Edns:
    """
    What a query's OPT record asks of its reply.

    *limit* is the octets that the client takes over UDP, held between our floor and ceiling; *opt* is the OPT that
    goes into a reply without options, empty if the query had none (RFC 6891, section 6.1.1).
    """

    opt: bytes
    limit: int
    version: int = 0
    do: bool = False
    nsid: bool = False
    cookie: bytes = b""
    keepalive: bool = False
    verified: bool = False
    """Whether the client proved, with a cookie that we gave it, that it is where it says (RFC 7873)."""


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


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A compiled reply without what belongs to one query: its id, its question, its OPT.

    *heads* are octets 2 to 11 of the header, for a query that (0) has neither, (1) desires recursion, (2) has an OPT,
    (3) both; *body* are the three sections; *count* is the one cell in which uses of this and of similar answers are
    counted.
    """

    rcode: int
    heads: tuple[bytes, bytes, bytes, bytes]
    body: bytes
    count: list[int] = field(compare=False, repr=False)


def parse(packet: bytes) -> Query | bytes | None:
    """
    Read a message: a `Query` to answer, the reply to send at once to a faulty one, or None for silence.

    Parsing costs little whatever comes: one question, no pointers in its name, at most one OPT. Trailing octets are
    ignored, as NSD and BIND do.
    """
    if len(packet) < HEADER or packet[2] & 0x80:  # a response: answering it could make two servers talk for ever
        return None
    flags, qdcount, ancount, nscount, arcount = _HEAD.unpack_from(packet, 2)
    opcode = (flags & _OPCODE) >> 11
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
        edns = Rcode.FORMERR if ancount or nscount else _parse_additional(packet, at, arcount - bool(tsig))
    elif opcode == Opcode.UPDATE and arcount:
        tsig = _find_tsig(packet, at, ancount + nscount + arcount)
    if isinstance(edns, Rcode):
        return header_only(packet, edns)
    return Query(packet[:2], bool(flags & RD), opcode, packet[HEADER : end + 4], qname, qtype, qclass, edns, tsig)


def compile_answer(
    qname: bytes,
    rcode: int,
    *,
    before: int = 0,
    answer: Sequence[RRset] = (),
    authority: Sequence[RRset] = (),
    additional: Sequence[RRset] = (),
    authoritative: bool = True,
    rclass: int = CLASS_IN,
    count: list[int] | None = None,
) -> Answer:
    """
    Lay out the sections of a reply to a question for *qname* (wire form), their names compressed against it.

    One answer fits many questions if *qname* is only what the names of all of them end in, behind *before* octets.
    """
    sections = (answer, authority, additional)
    question = _Question(qname, HEADER + before)
    body = b"".join(_pack(rrset, question, rclass) for section in sections for rrset in section)
    ancount, nscount, arcount = (sum(len(rrset.rdatas) for rrset in section) for section in sections)
    flags = QR | (AA if authoritative else 0) | (rcode & 0xF)
    plain, desired, opt, both = (
        _HEAD.pack(flags | rd, 1, ancount, nscount, arcount + opt) for opt in (0, 1) for rd in (0, RD)
    )
    return Answer(rcode, (plain, desired, opt, both), body, [0] if count is None else count)


def render(query: Query, answer: Answer, transport: Transport, options: bytes = b"") -> bytes:
    """
    The reply to *query*, with *options* (see `option`) in its OPT if it had one.

    Over UDP, one that does not fit is cut to its question with TC set (RFC 2181, section 9). The OPT stays: a client
    must learn our buffer size and errors from every reply (RFC 6891, section 7).
    """
    opt = query.edns.opt
    if opt and (options or answer.rcode > 0xF):
        opt = extend_opt(opt, options, extended_rcode=answer.rcode >> 4)
    head = answer.heads[query.recursion_desired + (2 if opt else 0)]
    reply = query.id + head + query.question + answer.body + opt
    if len(reply) > (query.edns.limit if transport is Transport.UDP else TCP_CEILING):
        return cut(reply, query.question, opt)
    return reply


def cut(reply: bytes, question: bytes, opt: bytes) -> bytes:
    """*reply* without its sections, and with TC set: the client shall ask again over TCP."""
    flags = int.from_bytes(reply[2:4], "big") | TC
    return reply[:2] + _HEAD.pack(flags, bool(question), 0, 0, bool(opt)) + question + opt


def extend_opt(opt: bytes, options: bytes, *, extended_rcode: int = 0) -> bytes:
    """*opt* with more *options* and the upper bits of the rcode (RFC 6891, section 6.1.3)."""
    length = len(opt) - _OPT_FIXED + len(options)
    return opt[:5] + bytes((extended_rcode,)) + opt[6:9] + length.to_bytes(2, "big") + opt[_OPT_FIXED:] + options


def header_only(packet: bytes, rcode: Rcode) -> bytes:
    """Twelve octets for a message that cannot or will not be read further, as NSD and BIND answer it."""
    flags = int.from_bytes(packet[2:4], "big")
    kept = flags & (_OPCODE if flags & _OPCODE else RD)  # other opcodes may give the remaining bits other meanings
    return packet[:2] + _HEAD.pack(QR | kept | rcode, 0, 0, 0, 0)


def option(code: int, data: bytes) -> bytes:
    """One EDNS option (RFC 6891, section 6.1.2)."""
    return _CODE_LENGTH.pack(code, len(data)) + data


def nsid(identifier: bytes) -> bytes:
    """The option that tells which of several servers answered (RFC 5001)."""
    return option(_NSID, identifier)


def cookie(client_cookie: bytes, server_cookie: bytes) -> bytes:
    """The option that gives a client its cookie (RFC 7873, section 4)."""
    return option(_COOKIE, client_cookie + server_cookie)


def keepalive(seconds: float) -> bytes:
    """The option that tells how long we leave an idle TCP connection open (RFC 7828: in units of 100 ms)."""
    return option(_KEEPALIVE, int(seconds * 10).to_bytes(2, "big"))


def extended_error(code: ExtendedError) -> bytes:
    """The option that says why (RFC 8914). Without extra text, which could only leak."""
    return option(_EDE, int(code).to_bytes(2, "big"))


_HEAD = struct.Struct("!HHHHH")
_TYPE_CLASS = struct.Struct("!HH")
_CODE_LENGTH = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_NSID, _COOKIE, _KEEPALIVE, _EDE = 3, 10, 11, 15

_TSIG = _TYPE_CLASS.pack(RRType.TSIG, CLASS_ANY)


NO_EDNS = Edns(b"", UDP_FLOOR)

# Our OPT: version 0, DO as the client sent it (RFC 3225, section 3), every other flag clear.
_OPTS = tuple(b"\0" + _RECORD.pack(RRType.OPT, UDP_CEILING, flags, 0) for flags in (0, DO))
_OPT_FIXED = len(_OPTS[0])


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
    if at + _RECORD.size > size:
        return size + 1
    return at + _RECORD.size + int.from_bytes(packet[at + 8 : at + 10], "big")


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


def _parse_additional(packet: bytes, at: int, arcount: int) -> Edns | Rcode:
    """The OPT of a query, alone allowed in its additional section (RFC 6891, section 6.1.1); or the rcode it earns."""
    if arcount == 0:
        return NO_EDNS
    if packet[at : at + 1] != b"\0" or len(packet) < at + 1 + _RECORD.size:
        return Rcode.FORMERR
    rrtype, size, ttl, length = _RECORD.unpack_from(packet, at + 1)
    options = packet[at + 1 + _RECORD.size : at + 1 + _RECORD.size + length]
    if rrtype != RRType.OPT or arcount > 1 or len(options) != length:
        return Rcode.FORMERR
    limit = min(max(size, UDP_FLOOR), UDP_CEILING)
    version, do = ttl >> 16 & 0xFF, bool(ttl & DO)
    if version:  # options of a version unknown to us are not ours to read (RFC 6891, section 6.1.3)
        return Edns(_OPTS[do], limit, version, do)
    return _parse_options(options, Edns(_OPTS[do], limit, version, do))


def _parse_options(options: bytes, edns: Edns) -> Edns | Rcode:
    """*edns* with what its options ask for. Unknown ones are ignored (RFC 6891, section 6.1.2)."""
    at, count, found = 0, 0, dict[int, bytes]()
    while at < len(options):
        count += 1
        if at + _CODE_LENGTH.size > len(options) or count > MAX_OPTIONS:
            return Rcode.FORMERR
        code, length = _CODE_LENGTH.unpack_from(options, at)
        at += _CODE_LENGTH.size + length
        if at > len(options):
            return Rcode.FORMERR
        found.setdefault(code, options[at - length : at])  # of several cookies the first (RFC 7873, section 5.2)
    client_cookie = found.get(_COOKIE, b"")
    if _COOKIE in found and len(client_cookie) != 8 and not 16 <= len(client_cookie) <= 40:  # RFC 7873, section 5.2.2
        return Rcode.FORMERR
    if not found:
        return edns
    return replace(edns, nsid=_NSID in found, cookie=client_cookie, keepalive=_KEEPALIVE in found)


def _parse_cookie_request(packet: bytes) -> Query | bytes:
    """A query without a question, whose only wish is a cookie (RFC 7873, section 5.4)."""
    edns = _parse_additional(packet, HEADER, 1)
    if isinstance(edns, Rcode) or not edns.cookie:
        return header_only(packet, Rcode.FORMERR)
    return Query(packet[:2], bool(packet[2] & 1), Opcode.QUERY, b"", b"", 0, CLASS_IN, edns)


@dataclass(frozen=True, slots=True)
class _Question:
    """The name that others are compressed against, and the octet of the message that it begins at."""

    name: bytes
    at: int


def _pack(rrset: RRset, question: _Question, rclass: int) -> bytes:
    owner = _compress(rrset.owner.wire, question)
    fixed = owner + _RECORD.pack(rrset.type, rclass, rrset.ttl, 0)[:-2]
    rdatas = [_compress_rdata(rrset.type, rdata, question) for rdata in rrset.rdatas]
    return b"".join(fixed + len(rdata).to_bytes(2, "big") + rdata for rdata in rdatas)


def _compress_rdata(rrtype: int, rdata: bytes, question: _Question) -> bytes:
    """*rdata* with its names compressed, for the types where every client expects that (RFC 3597, section 4)."""
    if rrtype in (RRType.NS, RRType.CNAME):
        return _compress(rdata, question)
    if rrtype == RRType.SOA:
        mname, rname = rdata[: name_end(rdata)], rdata[name_end(rdata) : -20]
        return _compress(mname, question) + _compress(rname, question) + rdata[-20:]
    return rdata


def _compress(name: bytes, question: _Question) -> bytes:
    """*name* with its longest suffix that ends the question's name replaced by a pointer into the question."""
    at = 0
    while name[at]:
        suffix = name[at:]
        start = len(question.name) - len(suffix)
        if start >= 0 and question.name.endswith(suffix) and is_label_start(question.name, start):
            return name[:at] + (0xC000 | question.at + start).to_bytes(2, "big")
        at += 1 + name[at]
    return name
