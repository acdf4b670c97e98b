"""
Rendering: from an `Answer` to the octets of a reply.

`compile_answer` makes everything that follows the question once, with names compressed against the question and each
other. `render` then only puts pieces together.
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
"""Octets of the longest message over TCP: its length has two octets (RFC 1035, section 4.2.2)."""


class Transport(Enum):
    """How a message arrived. This decides how long its reply may be."""

    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A compiled reply, without the parts that belong to a single query: the id, the question, and the OPT.

    *heads* are octets 2 to 11 of the header. The index is 1 for a query that desires recursion, plus 2 for a query with
    an OPT. *body* are the three sections. *optional* has, for each RRset at the end of the body that may be left out,
    the number of its records and of its octets. *count* is the cell in which uses of this answer are counted, together
    with those of similar answers.
    """

    rcode: int
    heads: tuple[bytes, bytes, bytes, bytes]
    body: bytes
    optional: tuple[tuple[int, int], ...]
    count: list[int] = field(compare=False, repr=False)

    def body_of(self, octets: int) -> tuple[bytes, int]:
        """
        The body with at most *octets*, and the number of records that are left out.

        Only whole RRsets of the additional section are left out, and each one that fits is kept (RFC 2181, section 9).
        If that is not enough, the body is longer than *octets*.
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
    Compile the sections of a reply to a question for *qname* (wire form), with compressed names. RRsets of the
    *additional* section may be left out of replies that would be too long.

    One answer can serve many questions: then *qname* is the common end of their names, with *before* octets before it.
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
    The reply to *query*. If the query has an OPT, the reply has one with *options* (see `option`) and *why*, which is
    an `extended_error`.

    If the reply is too long, addresses of nameservers are left out first, and then *why*. Neither sets TC, which is for
    what the client asked for (RFC 2181, section 9). RFC 8914, section 3, asks for TC without *why*, too, but then
    resolvers would ask again over TCP just for a text. If the reply is still too long, it is cut to its question, with
    TC set. The OPT stays, because each reply must have the buffer size and the errors (RFC 6891, section 7); *options*
    are left out if necessary.
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
    """A reply to *packet* with *rcode* and no records. If *packet* has a question, it is made by `refuse`."""
    query = parse(packet)
    return refuse(query, rcode, why) if isinstance(query, Query) else header_only(packet, rcode)


def refuse(query: Query, rcode: Rcode, why: bytes = b"", *, spare: int = 0) -> bytes:
    """
    A reply to *query* with its question, an OPT if the query has one, *rcode* and no records.

    *why* is an `extended_error`, which is left out if there is no room. *spare* octets are kept free for a signature.
    """
    query = replace(query, edns=replace(query.edns, limit=query.edns.limit - spare))
    return render(query, compile_answer(b"\0", rcode, authoritative=False), Transport.UDP, why=why)


def _head(query: Query, answer: Answer) -> bytes:
    """Octets 2 to 11 of the header. The reply has the opcode of the message, and its question if there is one."""
    head = answer.heads[query.recursion_desired + (2 if query.edns.opt else 0)]
    if query.opcode or not query.question:
        return bytes((head[0] | query.opcode << 3, head[1], 0, bool(query.echo))) + head[4:]
    return head


def cut(reply: bytes, question: bytes, opt: bytes) -> bytes:
    """*reply* without its sections and with TC set, so that the client asks again over TCP."""
    flags = int.from_bytes(reply[2:4], "big") | TC
    return reply[:2] + HEAD.pack(flags, bool(question), 0, 0, bool(opt)) + question + opt


@dataclass(slots=True)
class _Layout:
    """
    The sections of a message, record after record. A name that occurred before is replaced by a pointer.

    *qname* is the name in the question, or the common end of such names. It begins at octet *at* of the message.
    """

    qname: bytes
    at: int
    octets: bytearray = field(default_factory=bytearray)
    _names: dict[bytes, int] = field(default_factory=dict)  # where each name, or end of a name, was written

    def add(self, rrset: RRset, rclass: int) -> int:
        """Append *rrset*. Returns the number of octets that were added."""
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
        """Append rdata. Names in it are compressed for the types where all clients expect it (RFC 3597, section 4)."""
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
        """Append *name*. The longest suffix that occurred before becomes a pointer (RFC 1035, section 4.1.4)."""
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
        """The octet of the message at which *suffix* was written, or None."""
        start = len(self.qname) - len(suffix)
        if start >= 0 and self.qname.endswith(suffix) and is_label_start(self.qname, start):
            return self.at + start
        return self._names.get(suffix)


_TYPE_AND_CLASS = 4
_POINTER, _POINTER_END = 0xC000, 0x4000
