"""
The exchange: it takes one packet and gives one reply, or silence. No sockets, no database, nothing awaited.

Theory of operation
-------------------
`Exchange.respond` runs for every packet that reaches the service. It has two halves.

    packet: | id | octets 2 to 11 | name | type, class | OPT |
                        |             |         |         |
                     `_HEADS`      `nodes`  `answers`  `_opts`
                        |             |         |         |
    reply:  | id | head of Answer | name, type, class | body of Answer | OPT |

The first half is the fast path. It does not read the packet field by field; it cuts the packet into four pieces and
looks up each piece in a dictionary:

1. Octets 2 to 11 hold the flags and the counts of the header. `_HEADS` has the sixteen values that ordinary queries
   send.
2. The name, in lower case, is the key of `Zones.nodes`. There is one table for all zones.
3. Type and class are the key of the answers of that node. An `Answer` was compiled when its records were asked for
   first; it holds all octets of the reply behind the question. A name that does not exist, or a type that it does not
   have, gets the compiled negative answer of its zone.
4. The octets behind the question are an OPT record. Clients send few different ones, so `_opts` remembers what each
   means. An OPT with a DNS cookie is remembered together with the address of its client, because a cookie is good for
   one address.

If all four are found, and the reply is short enough, the reply is these pieces put together. The question is repeated
as it came, letter case included. If anything is missing, the packet takes the second half.

The second half (`_respond`) parses the message and is the definition of what is right: it handles every packet,
malformed ones, rare types and flags, other opcodes, signed messages. A property test holds the first half to the
second, so the fast path can never give another answer than the slow one.

The reason for two halves is time. The first half takes 1.2 to 1.6 microseconds, the second one several times as long,
and a library that builds objects for each message some 40. With the first half, one Python process answers about as
many queries as NSD on the same core (docs/performance.md, docs/decisions/0004-compiled-answers.md).

Some replies cannot be made here, because only the control process has the keys: DNS updates, and everything that is
signed. For these, `respond` returns `ELSEWHERE`; the caller passes the packet on, together with the `draft` of its
reply.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, TypeVar

from responder.dns import reasons
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
    Opcode,
    Query,
    Rcode,
    Transport,
    compile_answer,
    cookie,
    cut,
    extend_opt,
    keepalive,
    nsid,
    parse,
    render,
)
from responder.dns.zone import Zones

MAX_REMEMBERED_OPTS = 4096
"""OPT records that are remembered in parsed form, in each of two tables. A table that is full is emptied."""

SIGNATURE = 192
"""Octets that are kept free in a reply that will be signed: the service's TSIG records have at most 171."""

MAX_REMEMBERED_OPT = 128
"""Octets of the longest OPT record that is remembered: real clients send less, and an attacker can store no more."""


class Elsewhere(Enum):
    """The type of `ELSEWHERE`, so that a type checker can distinguish it from a reply."""

    ELSEWHERE = "elsewhere"


ELSEWHERE: Final = Elsewhere.ELSEWHERE
"""Stands for a reply that only the control process can make, since it has the keys: to an update or a signed query."""


@dataclass(frozen=True, slots=True)
class Draft:
    """
    What is known here about a reply that is made elsewhere.

    *octets* are the reply to a signed query without the signature; they are empty for an update. *count* is the cell in
    which the reply is counted if it is sent as it is here.
    """

    octets: bytes
    count: list[int]


class Exchange:
    """
    Replies to packets from the answers of *zones*.

    *tcp_idle* is how long idle TCP connections stay open, in seconds, for clients that ask. *updates* is whether
    the control process takes DNS updates.
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
        self._replies: Counter[tuple[str, int]] = Counter()  # of zones that were replaced
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
        self._types: Counter[bytes] = Counter()  # first half: queries by type and class
        self._rare_types: Counter[str] = Counter()  # second half: queries by label of the type
        self._relayed: Counter[int] = Counter()  # replies made elsewhere, by rcode
        self._events: Counter[str] = Counter()
        self._opts: dict[bytes, Edns] = {}
        self._cookie_opts: dict[tuple[str, bytes], Edns] = {}

    @property
    def zones(self) -> Zones:
        """The zones that are served."""
        return self._zones

    def serve(self, zones: Zones) -> None:
        """Serve *zones* from now on."""
        self._replies.update(self._zones.take_counts())
        self._zones, self._nodes = zones, zones.nodes

    def doubt(self, *, is_doubtful: bool) -> None:
        """Reply SERVFAIL to questions that depend on grants or values, while these may be stale (*is_doubtful*)."""
        self._is_doubtful = is_doubtful
        self._heads = {} if is_doubtful else _HEADS  # the second half knows about it

    def respond(self, packet: bytes, transport: Transport, client: str) -> bytes | Elsewhere | None:
        """The reply to *packet* from the address *client*, None for silence, or `ELSEWHERE`."""
        head = self._heads.get(packet[2:12])
        if head is not None:
            # `lower` does not change the lengths of labels: they are at most 63, and "A" is 65. If a label contains a
            # zero octet, the name is cut off there; what is left is not a well-formed name, so no table has it.
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
                        self._types[key] += 1  # this line and the next take 0.1 of the 8 us of a query
                        answer.count[0] += 1
                        if transport is Transport.TCP:
                            self._events["tcp"] += 1
                            return reply
                        if self._limit is None or edns.verified:
                            return reply
                        return self._limited(reply, packet[12 : end + 4], edns, transport, client)
        return self._respond(packet, transport, client)

    def draft(self, packet: bytes, transport: Transport, client: str) -> Draft:
        """What is known here of the reply to *packet*, after `respond` returned `ELSEWHERE`. This counts nothing."""
        query = parse(packet)
        if not isinstance(query, Query) or query.opcode == Opcode.UPDATE:
            return Draft(b"", self._refusals[Rcode.NOERROR].count)
        query = self._with_cookie(packet, query, client)
        edns = replace(query.edns, limit=query.edns.limit - SIGNATURE)
        return Draft(*self._reply(replace(query, edns=edns, tsig=0), transport))

    def count(self, reply: bytes, draft: Draft | None = None) -> None:
        """Count a *reply* that was made elsewhere: a signed *draft*, the reply to an update, or a refusal."""
        rcode = reply[3] & 0xF
        if draft is not None and rcode == (draft.octets[3] & 0xF if draft.octets else Rcode.NOERROR):
            draft.count[0] += 1
        else:
            self._relayed[rcode] += 1

    def take_counts(self) -> list[Count]:
        """The counts since the last call: for each its family, its labels, and the number."""
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
        """Check and renew every cookie at its next use. Call this every minute, and when the keys change."""
        self._cookie_opts.clear()

    def _respond(self, packet: bytes, transport: Transport, client: str) -> bytes | Elsewhere | None:
        """The second half of `respond`: the right reply to any packet."""
        self._events["rare"] += 1
        if transport is Transport.TCP:
            self._events["tcp"] += 1
        query = parse(packet)
        if query is None:
            self._events["ignored"] += 1
            return None
        if not isinstance(query, Query):
            self._events["malformed"] += 1
            self._refusals[Rcode(query[3] & 0xF)].count[0] += 1
            return self._limited(query, b"", NO_EDNS, transport, client)
        query = self._with_cookie(packet, query, client)
        if query.edns.fault:
            self._events["malformed"] += 1
        if query.tsig and self._updates:
            return self._limited(ELSEWHERE, query.echo, query.edns, transport, client)
        reply, count = self._reply(query, transport)
        count[0] += 1
        if reply[2] & _TRUNCATED:
            self._events["truncated"] += 1
        return self._limited(reply, query.echo, query.edns, transport, client)

    def _reply(self, query: Query, transport: Transport) -> tuple[bytes, list[int]]:
        """The reply to *query*, which is not signed or has no key here, and the cell in which it is counted."""
        refused = reasons.refuse(query, self._zones, updates=self._updates, cookies=self.cookies is not None)
        if refused is not None:
            rcode, reason = refused
            return render(query, self._refusals[rcode], transport, why=reason), self._refusals[rcode].count
        self._rare_types[type_label(query.qtype)] += 1
        answer, reason = self._resolve(query)
        options = self._nsid if query.edns.nsid else b""
        if query.edns.keepalive and transport is Transport.TCP:
            options += self._keepalive
        return render(query, answer, transport, options=options, why=reason), answer.count

    def _resolve(self, query: Query) -> tuple[Answer, bytes]:
        """The answer to a question, and the extended error if the answer is a refusal or an NXDOMAIN."""
        refusals = self._refusals
        if query.edns.version != 0:
            return refusals[Rcode.BADVERS], b""
        if not query.question:  # the client wants only a cookie (RFC 7873, section 5.4)
            return refusals[Rcode.NOERROR], b""
        if query.qclass == CLASS_CH:
            answer = self._chaos.get((query.qname, query.qtype))
            return (answer, b"") if answer is not None else (refusals[Rcode.REFUSED], reasons.NOT_SUPPORTED)
        if query.qclass != CLASS_IN:
            return refusals[Rcode.REFUSED], reasons.NOT_SUPPORTED
        zone = self._zones.find(query.qname)
        if zone is None:
            return refusals[Rcode.REFUSED], reasons.NOT_SERVED
        if query.qtype in _TRANSFERS:
            return refusals[Rcode.REFUSED], reasons.PROHIBITED
        if query.qtype in _NOT_QUESTIONS:
            return refusals[Rcode.FORMERR], reasons.NO_SUCH_QUESTION
        if query.qtype in _OBSOLETE:
            return refusals[Rcode.NOTIMP], reasons.NOT_SUPPORTED
        if self._is_doubtful and zone.may_be_stale(query.qname, query.qtype):
            return refusals[Rcode.SERVFAIL], reasons.STALE
        answer = zone.lookup(query.qname, query.qtype)
        return answer, reasons.UNCOVERED if answer.rcode else b""

    def _with_cookie(self, packet: bytes, query: Query, client: str) -> Query:
        """
        The query, after the client's cookie was checked and a new one was put into the OPT of its reply.

        An OPT is remembered for the first half of `respond`, if its reply depends on nothing else in the packet.
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
            edns = replace(edns, opt_of_nxdomain=extend_opt(edns.opt, reasons.UNCOVERED))
            if edns.cookie:
                _remember(self._cookie_opts, (client, tail), edns)
            else:
                _remember(self._opts, tail, edns)
        return replace(query, edns=edns)

    def _limited(
        self, reply: bytes | Elsewhere, question: bytes, edns: Edns, transport: Transport, client: str
    ) -> bytes | Elsewhere | None:
        """The *reply* as it is sent: whole, or over UDP perhaps cut to its *question*, or not at all (None)."""
        if transport is Transport.TCP or self._limit is None or edns.verified:
            return reply
        verdict = self._limit.judge(client)
        if verdict is Verdict.SEND:
            return reply
        if verdict is Verdict.DROP or reply is ELSEWHERE:
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

# Octets 2 to 11 in the header of an ordinary query: opcode QUERY, one question, at most one additional record. The
# value is the index in `Answer.heads`. RD, AD and CD occur in all combinations. Other headers take the second half.
_HEADS = {
    (rd | bits).to_bytes(2, "big") + bytes((0, 1, 0, 0, 0, 0, 0, opt)): (rd == RD) + _HAS_OPT * opt
    for rd in (0, RD)
    for bits in (0, _AD, _CD, _AD | _CD)
    for opt in (0, 1)
}

# Type and class of ordinary questions: the answer depends on the name only, also if the name does not have the type.
_ORDINARY = frozenset(
    rrtype.to_bytes(2, "big") + b"\0\1"
    for rrtype in (RRType.A, RRType.NS, RRType.SOA, RRType.MX, RRType.TXT, RRType.AAAA, RRType.SRV, RRType.DS,
                   RRType.DNSKEY, RRType.SVCB, RRType.HTTPS, RRType.CAA)
)  # fmt: skip

_TRANSFERS = {RRType.AXFR, RRType.IXFR}
_NOT_QUESTIONS = {RRType.OPT, RRType.NXNAME, RRType.TKEY, RRType.TSIG}
"""Types that no record can have, so a query for them is malformed (RFC 6895, section 3.1; RFC 9824, section 3.5)."""
_OBSOLETE = {RRType.MAILA, RRType.MAILB}
