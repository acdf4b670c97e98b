"""
`Answer` to bytes: everything that follows the question is compiled once, with names compressed against it and each
other; `render` then only puts pieces together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from responder.dns.rrset import CLASS_IN, RRset, RRType
from responder.dns.wire.edns import extend_opt
from responder.dns.wire.header import AA, HEAD, HEADER, QR, RD, RECORD, TC, Rcode, header_only
from responder.dns.wire.query import Query, parse
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
    (3) both; *body* are the three sections; *optional* has the records and the octets of each RRset at its end that may
    be left out; *count* is the one cell in which uses of this and of similar answers are counted.
    """

    rcode: int
    heads: tuple[bytes, bytes, bytes, bytes]
    body: bytes
    optional: tuple[tuple[int, int], ...]
    count: list[int] = field(compare=False, repr=False)

    def body_of(self, octets: int) -> tuple[bytes, int]:
        """
        The body within *octets*, and how many of its records are left out: whole RRsets of the additional section, of
        which each that fits is kept (RFC 2181, section 9). It is longer if that is not enough.
        """
        at = len(self.body) - sum(length for _, length in self.optional)
        body, left_out = self.body[:at], 0
        for records, length in self.optional:
            if len(body) + length <= octets:
                body += self.body[at : at + length]
            else:
                left_out += records
            at += length
        return body, left_out


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
    Lay out the sections of a reply to a question for *qname* (wire form), names compressed. RRsets of the *additional*
    section may be left out of replies that would be too long.

    One answer fits many questions if *qname* is only what the names of all of them end in, behind *before* octets.
    """
    layout = _Layout(qname, HEADER + before)
    for rrset in (*answer, *authority):
        layout.add(rrset, rclass)
    optional = tuple((len(rrset.rdatas), layout.add(rrset, rclass)) for rrset in additional)
    ancount, nscount, arcount = (
        sum(len(rrset.rdatas) for rrset in section) for section in (answer, authority, additional)
    )
    flags = QR | (AA if authoritative else 0) | (rcode & 0xF)
    plain, desired, opt, both = (
        HEAD.pack(flags | rd, 1, ancount, nscount, arcount + opt) for opt in (0, 1) for rd in (0, RD)
    )
    body = bytes(layout.octets)
    return Answer(rcode, (plain, desired, opt, both), body, optional, [0] if count is None else count)


def render(query: Query, answer: Answer, transport: Transport, *, options: bytes = b"", why: bytes = b"") -> bytes:
    """
    The reply to *query*, with *options* (see `option`) in its OPT if it had one, and with *why*, an `extended_error`.

    From one that does not fit, first goes what is optional: addresses of nameservers, then *why*. TC is for what was
    asked for (RFC 2181, section 9), though RFC 8914, section 3, would have it for *why* as well: a resolver would ask
    again over TCP for a text. If that does not do, it is cut to its question with TC set. The OPT stays: a client must
    learn our buffer size and errors from every reply (RFC 6891, section 7). *options* go if it takes that.
    """
    limit = query.edns.limit if transport is Transport.UDP else TCP_CEILING
    opt = least = query.edns.opt
    if opt and answer.rcode > 0xF:
        opt = least = extend_opt(opt, b"", extended_rcode=answer.rcode >> 4)
    if opt and (why or options):
        opt = extend_opt(opt, why + options, extended_rcode=answer.rcode >> 4)
    head, question, body = _head(query, answer), query.echo, answer.body
    if len(body) > (room := limit - HEADER - len(question) - len(opt)):
        body, left_out = answer.body_of(room)
        head = head[:8] + (int.from_bytes(head[8:], "big") - left_out).to_bytes(2, "big")
    reply = query.id + head + question + body + opt
    if len(reply) <= limit:
        return reply
    if why:
        return render(query, answer, transport, options=options)
    reply = cut(reply, question, opt)
    return reply if len(reply) <= limit else cut(reply, question, least)


def refusal(packet: bytes, rcode: Rcode, why: bytes = b"") -> bytes:
    """The reply to *packet* that has nothing but *rcode*, as `refuse` makes it if *packet* has a question."""
    query = parse(packet)
    return refuse(query, rcode, why) if isinstance(query, Query) else header_only(packet, rcode)


def refuse(query: Query, rcode: Rcode, why: bytes = b"", *, spare: int = 0) -> bytes:
    """
    The reply to *query* that has its question, an OPT if it had one, and *rcode*; with *why*, an `extended_error`, if
    there is room. *spare* are octets that are kept free, for a signature.
    """
    query = replace(query, edns=replace(query.edns, limit=query.edns.limit - spare))
    return render(query, compile_answer(b"\0", rcode, authoritative=False), Transport.UDP, why=why)


def _head(query: Query, answer: Answer) -> bytes:
    """Octets 2 to 11 of the header: the opcode of a message is that of its reply, and one question is all there is."""
    head = answer.heads[query.recursion_desired + (2 if query.edns.opt else 0)]
    if query.opcode or not query.question:
        return bytes((head[0] | query.opcode << 3, head[1], 0, bool(query.echo))) + head[4:]
    return head


def cut(reply: bytes, question: bytes, opt: bytes) -> bytes:
    """*reply* without its sections, and with TC set: the client shall ask again over TCP."""
    flags = int.from_bytes(reply[2:4], "big") | TC
    return reply[:2] + HEAD.pack(flags, bool(question), 0, 0, bool(opt)) + question + opt


@dataclass(slots=True)
class _Layout:
    """
    The sections of a message, one record after another, names replaced by pointers to where they were before.

    *qname* is the question's name, or what the names of all the questions end in, and *at* the octet it begins at.
    """

    qname: bytes
    at: int
    octets: bytearray = field(default_factory=bytearray)
    _names: dict[bytes, int] = field(default_factory=dict)  # where those begin that were written out, or their ends

    def add(self, rrset: RRset, rclass: int) -> int:
        """Append *rrset*. Returns how many octets that takes."""
        before = len(self.octets)
        fixed = RECORD.pack(rrset.type, rclass, rrset.ttl, 0)[:-2]
        for rdata in rrset.rdatas:
            self._add_name(rrset.owner.wire)
            self.octets += fixed
            length_at = len(self.octets)
            self.octets += b"\0\0"
            self._add_rdata(rrset.type, rdata)
            self.octets[length_at : length_at + 2] = (len(self.octets) - length_at - 2).to_bytes(2, "big")
        return len(self.octets) - before

    def _add_rdata(self, rrtype: int, rdata: bytes) -> None:
        """Names are compressed in the data of types where every client expects that (RFC 3597, section 4)."""
        if rrtype in (RRType.NS, RRType.CNAME):
            self._add_name(rdata)
        elif rrtype == RRType.SOA:
            end = name_end(rdata)
            self._add_name(rdata[:end])
            self._add_name(rdata[end:-20])
            self.octets += rdata[-20:]
        else:
            self.octets += rdata

    def _add_name(self, name: bytes) -> None:
        """*name*, with its longest suffix that was there before replaced by a pointer (RFC 1035, section 4.1.4)."""
        begin, at = self.at + len(self.qname) + _TYPE_AND_CLASS + len(self.octets), 0
        while name[at]:
            suffix = name[at:]
            if (found := self._find(suffix)) is not None:
                self.octets += name[:at] + (_POINTER | found).to_bytes(2, "big")
                return
            if begin + at < _POINTER_END:
                self._names[suffix] = begin + at
            at += 1 + name[at]
        self.octets += name

    def _find(self, suffix: bytes) -> int | None:
        """The octet of the message where *suffix* begins, if it does anywhere."""
        start = len(self.qname) - len(suffix)
        if start >= 0 and self.qname.endswith(suffix) and is_label_start(self.qname, start):
            return self.at + start
        return self._names.get(suffix)


_TYPE_AND_CLASS = 4
_POINTER, _POINTER_END = 0xC000, 0x4000
