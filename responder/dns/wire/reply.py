"""
`Answer` to bytes: everything that follows the question is compiled once, with owner names compressed against it;
`render` then only puts pieces together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from responder.dns.rrset import CLASS_IN, RRset, RRType
from responder.dns.wire.edns import extend_opt
from responder.dns.wire.header import AA, HEAD, HEADER, QR, RD, RECORD, TC
from responder.dns.wire.query import Query
from responder.names import is_label_start, name_end

TCP_CEILING = 65_535
"""Octets the two-octet length prefix can announce (RFC 1035, section 4.2.2)."""


class Transport(Enum):
    """How a message came, which decides how long its reply may be."""

    UDP = "udp"
    TCP = "tcp"


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
        HEAD.pack(flags | rd, 1, ancount, nscount, arcount + opt) for opt in (0, 1) for rd in (0, RD)
    )
    return Answer(rcode, (plain, desired, opt, both), body, [0] if count is None else count)


def render(query: Query, answer: Answer, transport: Transport, options: bytes = b"") -> bytes:
    """
    The reply to *query*, with *options* (see `option`) in its OPT if it had one.

    Over UDP, one that does not fit is cut to its question with TC set (RFC 2181, section 9). The OPT stays: a client
    must learn our buffer size and errors from every reply (RFC 6891, section 7). *options* go if it takes that.
    """
    opt = least = query.edns.opt
    if opt and answer.rcode > 0xF:
        opt = least = extend_opt(opt, b"", extended_rcode=answer.rcode >> 4)
    if opt and options:
        opt = extend_opt(opt, options, extended_rcode=answer.rcode >> 4)
    head = answer.heads[query.recursion_desired + (2 if opt else 0)]
    reply = query.id + head + query.question + answer.body + opt
    limit = query.edns.limit if transport is Transport.UDP else TCP_CEILING
    if len(reply) > limit:
        reply = cut(reply, query.question, opt)
    return reply if len(reply) <= limit else cut(reply, query.question, least)


def cut(reply: bytes, question: bytes, opt: bytes) -> bytes:
    """*reply* without its sections, and with TC set: the client shall ask again over TCP."""
    flags = int.from_bytes(reply[2:4], "big") | TC
    return reply[:2] + HEAD.pack(flags, bool(question), 0, 0, bool(opt)) + question + opt


@dataclass(frozen=True, slots=True)
class _Question:
    """The name that others are compressed against, and the octet of the message that it begins at."""

    name: bytes
    at: int


def _pack(rrset: RRset, question: _Question, rclass: int) -> bytes:
    owner = _compress(rrset.owner.wire, question)
    fixed = owner + RECORD.pack(rrset.type, rclass, rrset.ttl, 0)[:-2]
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
