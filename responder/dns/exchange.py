"""
One packet in, one packet or silence out. No sockets, no database, nothing awaited.

`Exchange.respond` is the hot path of the whole service. Its first half answers the common query (an ordinary type, in
a zone of ours, with an OPT seen before or none) with a handful of table look-ups; anything else falls through to the
second half, which is the definition of what is right. A test holds the first half to the second.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TypeVar

from responder.dns.cookies import Cookies
from responder.dns.counts import NO_ZONE, Count, rcode_label, type_label
from responder.dns.identity import Identity
from responder.dns.ratelimit import RateLimit, Verdict
from responder.dns.rrset import CLASS_CH, CLASS_IN, RRType
from responder.dns.wire import (
    HEADER,
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
    cookie,
    cut,
    extend_opt,
    extended_error,
    keepalive,
    nsid,
    parse,
    render,
)
from responder.dns.zone import Zones

MAX_REMEMBERED_OPTS = 4096
"""Distinct OPT records remembered in their parsed form, in each of two tables. A flood of others starts them afresh."""

ELSEWHERE = b""
"""The reply to a message that only somebody with the keys can answer: an update, or a query that is signed."""

SIGNATURE = 192
"""Octets kept free in a reply that is going to be signed: a TSIG of ours has at most 171."""

MAX_REMEMBERED_OPT = 128
"""Octets of an OPT record worth remembering: more than real clients send, and a bound on what others can store."""


@dataclass(frozen=True, slots=True)
class Draft:
    """
    All that is known here of a reply that is made elsewhere: its *octets* but for the signature, none of one to an
    update; and the cell that it is counted in, if that is what is sent in the end.
    """

    octets: bytes
    count: list[int]


class Exchange:
    """
    Answers packets from *zones*. *tcp_idle* is given to clients that ask for it, in seconds; *updates* is whether
    another process answers those.
    """

    __slots__ = (
        "_chaos",
        "_cookie_opts",
        "_events",
        "_heads",
        "_is_doubtful",
        "_keepalive",
        "_limit",
        "_nodes",
        "_nsid",
        "_opts",
        "_rare_types",
        "_refusals",
        "_relayed",
        "_replies",
        "_types",
        "_updates",
        "_zones",
        "cookies",
    )

    def __init__(
        self,
        zones: Zones | None = None,
        *,
        identity: Identity | None = None,
        cookies: Cookies | None = None,
        limit: RateLimit | None = None,
        tcp_idle: float = 10.0,
        updates: bool = False,
    ) -> None:
        identity = identity or Identity()
        self._replies: Counter[tuple[str, int]] = Counter()  # of zones that have made room for new ones
        self._zones = Zones()
        self.serve(zones or self._zones)
        self.cookies = cookies
        self._limit = limit
        self._nsid = nsid(identity.nsid.encode()) if identity.nsid else b""
        self._refusals = {rcode: compile_answer(b"\0", rcode, authoritative=False) for rcode in Rcode}
        self._chaos = identity.answers(self._refusals[Rcode.NOERROR].count)
        self._keepalive = keepalive(tcp_idle)
        self._updates = updates
        self._heads, self._is_doubtful = _HEADS, False
        self._types: Counter[bytes] = Counter()  # of queries answered by the first half, by what ends their question
        self._rare_types: Counter[str] = Counter()  # of those answered by the second half, by their labels
        self._relayed: Counter[int] = Counter()  # rcodes of replies that were made elsewhere
        self._events: Counter[str] = Counter()
        self._opts: dict[bytes, Edns] = {}
        self._cookie_opts: dict[tuple[str, bytes], Edns] = {}

    @property
    def zones(self) -> Zones:
        """What is served."""
        return self._zones

    def serve(self, zones: Zones) -> None:
        """Answer from *zones* from now on."""
        self._replies.update(self._zones.take_counts())
        self._zones, self._nodes = zones, zones.nodes

    def doubt(self, *, is_doubtful: bool) -> None:
        """Answer SERVFAIL where grants or values decide, for as long as it *is_doubtful* whether they are current."""
        self._is_doubtful = is_doubtful
        self._heads = {} if is_doubtful else _HEADS  # the second half knows about it

    def respond(self, packet: bytes, transport: Transport, client: str) -> bytes | None:
        """The reply to *packet* from the address *client*, None for silence, or `ELSEWHERE`."""
        head = self._heads.get(packet[2:12])
        if head is not None:
            # Lower-casing leaves label lengths alone (at most 63, and "A" is 65). A zero octet inside a label would
            # end the name early, but then what was cut off is no well-formed name, and no table has it.
            end = packet.find(0, 12) + 1
            qname = packet[12:end].lower()
            key = packet[end : end + 4]
            node = self._nodes.get(qname)
            answer = node.answers.get(key) if node is not None else None
            if answer is None and key in _ORDINARY:
                answer = self._zones.answer(qname, key, node)
            if answer is not None:
                edns: Edns | None = NO_EDNS
                if head & _HAS_OPT:
                    tail = packet[end + 4 :]
                    edns = self._opts.get(tail) or self._cookie_opts.get((client, tail))
                if edns is not None:
                    opt = edns.opt_of_nxdomain if answer.rcode else edns.opt
                    reply = packet[:2] + answer.heads[head] + packet[12 : end + 4] + answer.body + opt
                    if len(reply) <= edns.limit:
                        self._types[key] += 1  # with the next line 0.1 us, of 8 that a query takes
                        answer.count[0] += 1
                        if transport is Transport.TCP:
                            self._events["tcp"] += 1
                            return reply
                        if self._limit is None or edns.verified:
                            return reply
                        return self._limited(reply, packet[12 : end + 4], edns, client)
        return self._respond(packet, transport, client)

    def draft(self, packet: bytes, transport: Transport, client: str) -> Draft:
        """What is to be signed of the reply to *packet*, for which `respond` was `ELSEWHERE`. It is not counted yet."""
        query = parse(packet)
        if not isinstance(query, Query) or query.opcode == Opcode.UPDATE:
            return Draft(b"", self._refusals[Rcode.NOERROR].count)
        query = self._with_cookie(packet, query, client)
        edns = replace(query.edns, limit=query.edns.limit - SIGNATURE)
        return Draft(*self._answer(replace(query, edns=edns, tsig=0), transport))

    def count(self, reply: bytes, draft: Draft | None = None) -> None:
        """Count a *reply* that was made elsewhere: *draft* with a signature, the reply to an update, or a refusal."""
        rcode = reply[3] & 0xF
        if draft is not None and rcode == (draft.octets[3] & 0xF if draft.octets else Rcode.NOERROR):
            draft.count[0] += 1
        else:
            self._relayed[rcode] += 1

    def take_counts(self) -> list[Count]:
        """What was counted since the last call: for each count its family, its labels, and the number."""
        replies, self._replies = self._replies + Counter(self._zones.take_counts()), Counter()
        relayed, self._relayed = self._relayed, Counter()
        for rcode, number in relayed.items():
            replies[NO_ZONE, rcode] += number
        for rcode, refusal in self._refusals.items():
            replies[NO_ZONE, rcode] += refusal.count[0]
            refusal.count[0] = 0
        types, self._types = self._types, Counter()
        queries, self._rare_types = self._rare_types, Counter()
        for key, number in types.items():
            queries[type_label(int.from_bytes(key[:2], "big"))] += number
        events, self._events = self._events, Counter()
        tcp, total = events.pop("tcp", 0), sum(types.values()) + events.pop("rare", 0)
        return [
            *(("queries", (label,), number) for label, number in queries.items()),
            *(("replies", (zone, rcode_label(rcode)), number) for (zone, rcode), number in replies.items() if number),
            ("messages", ("tcp",), tcp),
            ("messages", ("udp",), total - tcp),
            *(("events", (event,), number) for event, number in events.items()),
        ]

    def forget_cookies(self) -> None:
        """Have every cookie checked and renewed at its next use. Call it every minute, and when the keys change."""
        self._cookie_opts.clear()

    def _respond(self, packet: bytes, transport: Transport, client: str) -> bytes | None:
        """The right reply to any packet."""
        self._events["rare"] += 1
        if transport is Transport.TCP:
            self._events["tcp"] += 1
        query = parse(packet)
        if query is None:
            self._events["ignored"] += 1
            return None
        if isinstance(query, Query):
            query = self._with_cookie(packet, query, client)
            (reply, count), question, edns = self._answer(query, transport), query.echo, query.edns
            if reply and reply[2] & _TRUNCATED:
                self._events["truncated"] += 1
            if edns.fault:
                self._events["malformed"] += 1
        else:
            reply, question, edns = query, b"", NO_EDNS
            count = self._refusals[Rcode(reply[3] & 0xF)].count
            self._events["malformed"] += 1
        if reply != ELSEWHERE:
            count[0] += 1
        if transport is Transport.TCP or self._limit is None or edns.verified:
            return reply
        return self._limited(reply, question, edns, client)

    def _answer(self, query: Query, transport: Transport) -> tuple[bytes, list[int]]:
        """The reply to a message with a question, and the cell that it is counted in."""
        if (refused := self._refuse(query)) is not None:
            rcode, why = refused
            return render(query, self._refusals[rcode], transport, why=why), self._refusals[rcode].count
        if query.opcode == Opcode.UPDATE or query.tsig:
            return ELSEWHERE, []
        self._rare_types[type_label(query.qtype)] += 1
        answer, why = self._resolve(query)
        options = self._nsid if query.edns.nsid else b""
        if query.edns.keepalive and transport is Transport.TCP:
            options += self._keepalive
        return render(query, answer, transport, options=options, why=why), answer.count

    def _refuse(self, query: Query) -> tuple[Rcode, bytes] | None:
        """
        What a message gets that is refused without a key or a table, and the extended error; None for any other.

        That includes every message with a signature: its reply must have one, too (RFC 8945, section 5.3).
        """
        if query.tsig and self._updates:
            return None
        if query.edns.fault:
            return Rcode.FORMERR, extended_error(ExtendedError.OTHER, query.edns.fault)
        if query.opcode != Opcode.QUERY and query.edns.version:
            return Rcode.BADVERS, b""
        if query.opcode == Opcode.NOTIFY:  # we are primary of all we serve: there is no news for us (RFC 1996, 3.10)
            return (Rcode.REFUSED, _NO_SECONDARY) if self._zones.find(query.qname) else (Rcode.NOTAUTH, _ELSEWHERE)
        if query.opcode == Opcode.UPDATE:
            return self._refuse_update(query)
        if query.tsig:
            return Rcode.FORMERR, _NO_KEYS
        if not query.question and self.cookies is None:
            return Rcode.FORMERR, _NO_COOKIES
        return None

    def _refuse_update(self, query: Query) -> tuple[Rcode, bytes]:
        """The same for an update, which is refused if it has no signature (RFC 2136, section 3.1)."""
        if not self._updates:
            return Rcode.NOTIMP, _NO_UPDATES
        if query.qtype != RRType.SOA:
            return Rcode.FORMERR, _NO_ZONE_SECTION
        zone = self._zones.find(query.qname)
        if query.qclass != CLASS_IN or zone is None or zone.apex.wire != query.qname:
            return Rcode.NOTAUTH, _NO_APEX
        return Rcode.REFUSED, _UNSIGNED

    def _resolve(self, query: Query) -> tuple[Answer, bytes]:
        """The answer to a question, and the extended error if it is a refusal or an NXDOMAIN."""
        refusals = self._refusals
        if query.edns.version != 0:
            return refusals[Rcode.BADVERS], b""
        if not query.question:  # it is for a cookie alone (RFC 7873, section 5.4)
            return refusals[Rcode.NOERROR], b""
        if query.qclass == CLASS_CH:
            answer = self._chaos.get((query.qname, query.qtype))
            return (answer, b"") if answer is not None else (refusals[Rcode.REFUSED], _NOT_SUPPORTED)
        if query.qclass != CLASS_IN:
            return refusals[Rcode.REFUSED], _NOT_SUPPORTED
        zone = self._zones.find(query.qname)
        if zone is None:
            return refusals[Rcode.REFUSED], _ELSEWHERE
        if query.qtype in _TRANSFERS:
            return refusals[Rcode.REFUSED], _PROHIBITED
        if query.qtype in _NOT_QUESTIONS:
            return refusals[Rcode.FORMERR], _NO_SUCH_QUESTION
        if query.qtype in _OBSOLETE:
            return refusals[Rcode.NOTIMP], _NOT_SUPPORTED
        if self._is_doubtful and zone.may_be_stale(query.qname, query.qtype):
            return refusals[Rcode.SERVFAIL], _STALE
        answer = zone.lookup(query.qname, query.qtype)
        return answer, _UNCOVERED if answer.rcode else b""

    def _with_cookie(self, packet: bytes, query: Query, client: str) -> Query:
        """
        The query, with the client's cookie checked and a fresh one in the OPT of its reply.

        An OPT whose reply depends on nothing else is remembered, for the first half of `respond`.
        """
        edns = query.edns
        if not edns.opt or edns.version != 0 or edns.fault:
            return query
        tail = packet[12 + len(query.question) :]
        begins_with_opt = query.opcode == Opcode.QUERY and query.qtype != RRType.IXFR
        if begins_with_opt and (known := self._opts.get(tail) or self._cookie_opts.get((client, tail))):
            return replace(query, edns=known)
        if edns.cookie and self.cookies is not None:
            granted = cookie(edns.cookie[:8], self.cookies.grant(edns.cookie, client))
            verified = self.cookies.is_ours(edns.cookie, client)
            edns = replace(edns, opt=extend_opt(edns.opt, granted), verified=verified)
        ordinary = begins_with_opt and query.question and not (edns.nsid or edns.keepalive or query.tsig)
        if ordinary and len(tail) <= MAX_REMEMBERED_OPT:
            edns = replace(edns, opt_of_nxdomain=extend_opt(edns.opt, _UNCOVERED))
            if edns.cookie:
                _remember(self._cookie_opts, (client, tail), edns)
            else:
                _remember(self._opts, tail, edns)
        return replace(query, edns=edns)

    def _limited(self, reply: bytes, question: bytes, edns: Edns, client: str) -> bytes | None:
        """What becomes of a UDP reply to a client whose address may be forged."""
        assert self._limit is not None  # noqa: S101
        verdict = self._limit.judge(client)
        if verdict is Verdict.SEND:
            return reply
        if verdict is Verdict.DROP or reply == ELSEWHERE:
            self._events["dropped"] += 1
            return None
        self._events["cut"] += 1
        bare = len(reply) == HEADER  # a refusal without the question
        return cut(reply, b"" if bare else question, b"" if bare else edns.opt)


K = TypeVar("K")


def _remember(table: dict[K, Edns], key: K, edns: Edns) -> None:
    if len(table) >= MAX_REMEMBERED_OPTS:
        table.clear()
    table[key] = edns


_AD, _CD = 0x20, 0x10
_TRUNCATED = 0x02  # of the octet that holds TC
_HAS_OPT = 2

# Octets 2 to 11 of an ordinary query's header: opcode QUERY, one question, perhaps one additional record; mapped to
# which of an answer's heads fits. RD, AD and CD come in every mixture; all that is rarer takes the second half.
_HEADS = {
    (rd | bits).to_bytes(2, "big") + bytes((0, 1, 0, 0, 0, 0, 0, opt)): (rd == RD) + _HAS_OPT * opt
    for rd in (0, RD)
    for bits in (0, _AD, _CD, _AD | _CD)
    for opt in (0, 1)
}

# Type and class of questions whose answer depends on nothing but the name, even if that does not hold the type.
_ORDINARY = frozenset(
    rrtype.to_bytes(2, "big") + b"\0\1"
    for rrtype in (RRType.A, RRType.NS, RRType.SOA, RRType.MX, RRType.TXT, RRType.AAAA, RRType.SRV, RRType.DS,
                   RRType.DNSKEY, RRType.SVCB, RRType.HTTPS, RRType.CAA)
)  # fmt: skip

# Extended errors (RFC 8914). Their texts are for the person who looks for the reason, and give nothing away that the
# rcode does not.
_UNCOVERED = extended_error(ExtendedError.OTHER, "no token covers this name")
_STALE = extended_error(ExtendedError.NOT_READY, "this server may be behind the others of the zone")
_ELSEWHERE = extended_error(ExtendedError.NOT_AUTHORITATIVE)
_PROHIBITED = extended_error(ExtendedError.PROHIBITED)
_NOT_SUPPORTED = extended_error(ExtendedError.NOT_SUPPORTED)
_NO_SUCH_QUESTION = extended_error(ExtendedError.INVALID_QUERY_TYPE)
_NO_SECONDARY = extended_error(ExtendedError.PROHIBITED, "this server is the primary of the zone")
_NO_UPDATES = extended_error(ExtendedError.NOT_SUPPORTED, "DNS updates are off")
_NO_ZONE_SECTION = extended_error(ExtendedError.OTHER, "the zone section of an update must ask for a SOA")
_NO_APEX = extended_error(ExtendedError.NOT_AUTHORITATIVE, "an update must name a zone that is served here")
_UNSIGNED = extended_error(ExtendedError.PROHIBITED, "an update must be signed with the key of a token")
_NO_KEYS = extended_error(ExtendedError.NOT_SUPPORTED, "no signature is checked, since DNS updates are off")
_NO_COOKIES = extended_error(ExtendedError.OTHER, "a query must have one question")

_TRANSFERS = {RRType.AXFR, RRType.IXFR}
_NOT_QUESTIONS = {RRType.OPT, RRType.NXNAME, RRType.TKEY, RRType.TSIG}
"""Types that are never data, so never asked for (RFC 6895, section 3.1; RFC 9824, section 3.5)."""
_OBSOLETE = {RRType.MAILA, RRType.MAILB}
