"""
One packet in, one packet or silence out. Pure: no sockets, no clock, no state but the zones it is handed.

`respond` is the hot path of the whole service. Its first half answers the common query (a name we hold, a type it
holds, no EDNS options) with four table look-ups; anything else falls through to the second half, which is the
definition of what is right. A test holds the first half to the second.
"""

from __future__ import annotations

from responder.rrset import CLASS_IN, RRType
from responder.wire import (
    NO_EDNS,
    RD,
    Answer,
    Edns,
    ExtendedError,
    Opcode,
    Query,
    Rcode,
    Transport,
    compile_answer,
    extended_error,
    header_only,
    parse,
    render,
)
from responder.zone import Zones

MAX_REMEMBERED_OPTS = 1024
"""Distinct plain OPT records remembered in their parsed form. Real clients send a few dozen; a flood starts afresh."""

_AD, _CD = 0x20, 0x10

# Octets 2 to 11 of an ordinary query's header: opcode QUERY, one question, perhaps one additional record; mapped to
# which of an answer's heads fits. RD, AD and CD come in every mixture; all that is rarer takes the second half.
_HEADS = {
    (rd | bits).to_bytes(2, "big") + bytes((0, 1, 0, 0, 0, 0, 0, opt)): (rd == RD) + 2 * opt
    for rd in (0, RD)
    for bits in (0, _AD, _CD, _AD | _CD)
    for opt in (0, 1)
}
_opts: dict[bytes, Edns] = {}
_PLAIN_OPT = 11
"""Octets of an OPT record without options."""


def respond(zones: Zones, packet: bytes, transport: Transport) -> bytes | None:
    """
    The reply to *packet*, or None for silence. Never raises: whatever comes in is answered as the RFCs say.
    """
    head = _HEADS.get(packet[2:12])
    if head is not None:
        # Lower-casing leaves label lengths alone (at most 63, and "A" is 65). A zero octet inside a label would end
        # the name early, but then what was cut off is no well-formed name and so no key of the table.
        end = packet.find(0, 12) + 1
        node = zones.nodes.get(packet[12:end].lower())
        if node is not None:
            answer = node.answers.get(packet[end : end + 4])
            edns = _opts.get(packet[end + 4 :]) if head & 2 else NO_EDNS
            if answer is not None and edns is not None:
                reply = packet[:2] + answer.heads[head] + packet[12 : end + 4] + answer.body + edns.opt
                if len(reply) <= edns.limit:
                    return reply
    query = parse(packet)
    if not isinstance(query, Query):
        return query
    if query.opcode == Opcode.NOTIFY:  # we are primary of all we serve: nobody has news for us (RFC 1996, 3.10)
        return header_only(packet, Rcode.REFUSED if zones.find(query.qname) else Rcode.NOTAUTH)
    _remember_opt(packet, query)
    answer, why = _resolve(zones, query, transport)
    return render(query, answer, transport, extended_error(why) if why is not None else b"")


def _resolve(zones: Zones, query: Query, transport: Transport) -> tuple[Answer, ExtendedError | None]:
    """What is right to say to a well-formed query, and why if it is a refusal."""
    zone = zones.find(query.qname)
    if query.edns.version != 0:
        return _BADVERS, None
    if query.qclass != CLASS_IN or zone is None:
        return _REFUSED, ExtendedError.NOT_AUTHORITATIVE
    if query.qtype in _TRANSFERS:
        return _REFUSED, ExtendedError.PROHIBITED
    if query.qtype in _NOT_QUESTIONS:
        return _FORMERR, ExtendedError.INVALID_QUERY_TYPE
    if query.qtype in _OBSOLETE:
        return _NOTIMP, None
    return zone.lookup(query.qname, query.qtype), None


def _remember_opt(packet: bytes, query: Query) -> None:
    """Let the first half know this OPT, if it has no options: then its reply depends on nothing else."""
    tail = packet[12 + len(query.question) :]
    if query.edns.opt and query.edns.version == 0 and len(tail) == _PLAIN_OPT and tail not in _opts:
        if len(_opts) >= MAX_REMEMBERED_OPTS:
            _opts.clear()
        _opts[tail] = query.edns


def _refusal(rcode: Rcode) -> Answer:
    return compile_answer(b"\0", rcode, authoritative=False)


_REFUSED, _FORMERR = _refusal(Rcode.REFUSED), _refusal(Rcode.FORMERR)
_BADVERS, _NOTIMP = _refusal(Rcode.BADVERS), _refusal(Rcode.NOTIMP)

_TRANSFERS = {RRType.AXFR, RRType.IXFR}
_NOT_QUESTIONS = {RRType.OPT, RRType.NXNAME, RRType.TKEY, RRType.TSIG}
"""Types that are never data, so never asked for (RFC 6895, section 3.1; RFC 9824, section 3.5)."""
_OBSOLETE = {RRType.MAILA, RRType.MAILB}
