"""
Where the service and NSD may reply to a query differently: the list is complete, and each entry has its reason.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import dns.name
import dns.rdataclass
import dns.rdatatype

from .random_dns import TYPES, RandomQuery, zone_of
from .replies import COOKIE, EXTENDED_ERROR, Client, Record, Seen

_Instead = Callable[[RandomQuery, Seen, Client], Iterator[Seen]]


@dataclass(frozen=True, slots=True)
class Difference:
    """
    A difference that may be: why, and what the reply is instead of NSD's.

    *instead* is given the query, NSD's reply, and NSD itself to ask it something else; never our own reply. It yields
    what would be as good as NSD's reply, if the difference applies.
    """

    reason: str
    instead: _Instead


DIFFERENCES: dict[str, Difference] = {}


def compare(query: RandomQuery, us: Client, them: Client) -> str | None:
    """`equal`, the names of the differences that there are, or None if the two replies are unlike."""
    ours, theirs = us.ask(query), them.ask(query)
    if theirs is None and query.over_tcp:  # it hangs up on everybody for a while after some malformed messages
        theirs = them.ask(query.changed(over_tcp=False))
    if ours is None or theirs is None:
        return None
    if ours == theirs:
        if "TC" in ours.flags and not query.over_tcp:
            return compare(query.changed(over_tcp=True), us, them)
        return "equal"
    candidates: dict[Seen, tuple[str, ...]] = {theirs: ()}
    for name, difference in DIFFERENCES.items():
        for candidate, names in list(candidates.items()):
            for reply in difference.instead(query, candidate, them):
                candidates.setdefault(reply, (*names, name))
        if ours in candidates:
            return " + ".join(candidates[ours])
    return None


def _difference(name: str, reason: str) -> Callable[[_Instead], _Instead]:
    def register(instead: _Instead) -> _Instead:
        DIFFERENCES[name] = Difference(reason, instead)
        return instead

    return register


@_difference(
    "rcode in a query", "NSD calls it malformed; here it is ignored: only replies have one (RFC 1035, section 4.1.1)"
)
def _ignore_rcode(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.flags & 0xF and query.opcode == 0 and theirs.rcode == "FORMERR":
        yield from _asked_instead(them, query)


@_difference("reason of an NXDOMAIN", "NSD gives none; here a client with EDNS is told that no token covers the name")
def _give_reason(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if theirs.rcode == "NXDOMAIN" and theirs.edns and query.opcode == 0:
        yield _with_error(theirs, _OTHER, "no token covers this name")


@_difference(
    "malformed options", "NSD drops the question and the OPT; here both come back (RFC 6891, 6.1.1), with the reason"
)
def _keep_question(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.opcode == 0 and theirs.rcode == "FORMERR" and not theirs.question:
        kept = replace(theirs, question=query.question, edns=(0, 0x8000 if query.do else 0, 1232))
        yield from (_with_error(kept, *reason) for reason in _MALFORMED)


@_difference("updates", "NSD takes none; here they are taken by who can sign them, and these lack all that one needs")
def _take_updates(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.opcode == 5 and theirs.rcode == "NOTIMP":
        yield from (replace(theirs, rcode=rcode) for rcode in ("FORMERR", "NOTAUTH", "REFUSED"))


@_difference(
    "question and OPT of a NOTIFY or an update",
    "NSD drops both; here they come back (RFC 6891, section 6.1.1) with the reason, but for an invalid zone section",
)
def _keep_both(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.opcode not in _REASONS:
        return
    kept = replace(
        theirs, question=query.question if (query.qtype, query.qclass) == _ZONE or query.opcode == 4 else b""
    )
    if query.size is None:
        yield kept
        return
    for reply in _asked_instead(them, query.changed(flags=0)):  # with NSD's cookie
        options = frozenset(option for option in reply.options if option[0] == COOKIE)
        kept = replace(kept, edns=(0, 0x8000 if query.do else 0, 1232), options=options)
        if reply.rcode == "FORMERR":
            kept = replace(kept, rcode="FORMERR")
        yield from (_with_error(kept, *reason) for reason in (*_REASONS[query.opcode], *_MALFORMED))
        if reply.rcode == "BADVERS":
            yield replace(kept, rcode="BADVERS")


@_difference("flags of another opcode", "NSD sends them back; here they are cleared, since their meaning is not known")
def _clear_flags(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.opcode:
        yield replace(theirs, flags=frozenset(("QR",)))


@_difference(
    "NOTIFY",
    "NSD says NXDOMAIN where it is no secondary, and FORMERR to some records behind the question, which nobody reads "
    "here; here REFUSED in a zone, NOTAUTH outside (RFC 1996)",
)
def _refuse_notify(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.opcode == 4 and theirs.rcode in ("NXDOMAIN", "FORMERR"):
        yield replace(theirs, rcode="REFUSED" if query.zone else "NOTAUTH")


@_difference(
    "BADVERS", "NSD copies all flags but DO; here only RD and DO come back, as in every reply (RFC 6891, 6.1.3)"
)
def _copy_do(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if theirs.rcode == "BADVERS" and theirs.edns:
        version, _, size = theirs.edns
        yield replace(theirs.without_records("BADVERS"), edns=(version, 0x8000 if query.do else 0, size))


@_difference("class", "NSD drops the question, says another extended error, and answers class ANY; all is refused here")
def _refuse_class(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.opcode == 0 and query.qclass != _IN and theirs.rcode not in ("FORMERR", "BADVERS"):
        yield replace(theirs.without_records("REFUSED", error=_NOT_SUPPORTED), question=query.question)


@_difference(
    "types for queries only", "NSD looks for data of that type; here the question is called malformed (RFC 9824)"
)
def _refuse_type(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if _is_about_a_zone(query) and query.qtype in _NOT_DATA:
        yield theirs.without_records("FORMERR", error=_INVALID_TYPE)


@_difference("MAILA and MAILB", "NSD looks for data of that type; they were abolished when MX came (RFC 973)")
def _refuse_obsolete(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if _is_about_a_zone(query) and query.qtype in _OBSOLETE:
        yield theirs.without_records("NOTIMP", error=_NOT_SUPPORTED)


@_difference("transfers", "NSD says NOTIMP or NOTAUTH, by transport and type; here they are refused everywhere alike")
def _refuse_transfer(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.opcode == 0 and query.qtype in _TRANSFERS and theirs.rcode in ("NOTIMP", "NOTAUTH", "REFUSED"):
        yield theirs.without_records("REFUSED", error=_PROHIBITED if query.zone else _NOT_AUTHORITATIVE)


@_difference("ANY", "each picks an RRset of its own (RFC 8482, section 4.1)")
def _pick_another(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if _is_about_a_zone(query) and query.qtype == dns.rdatatype.ANY:
        for rdtype in TYPES:
            narrower = query.changed(qtype=dns.rdatatype.from_text(rdtype))
            for reply in _asked_instead(them, narrower):
                for whole_or_not in (reply, *_truncate(narrower, reply, them)):
                    if reply.answer or "TC" in reply.flags:
                        yield replace(whole_or_not, question=query.question)


@_difference("NSEC3 at an alias", "NSD does not follow the CNAME for this type; here it is a type like any other")
def _follow_for_nsec3(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if _is_about_a_zone(query) and query.qtype == dns.rdatatype.NSEC3 and not theirs.answer:
        for reply in _asked_instead(them, query.changed(qtype=_NOWHERE)):
            yield replace(reply, question=query.question)


@_difference("alias to another zone", "NSD goes on in a zone that it happens to serve; a resolver does not trust that")
def _stop_at_the_end_of_the_zone(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    aliases = {record.owner: record for record in theirs.answer if record.rdtype == dns.rdatatype.CNAME}
    chain, owner = [], query.name
    while owner in aliases and zone_of(owner) == query.zone:
        chain.append(aliases.pop(owner))
        owner = dns.name.from_wire(chain[-1].rdata, 0)[0]
    if _is_about_a_zone(query) and chain and zone_of(owner) not in (query.zone, None):
        flags = theirs.flags - {"TC"}
        yield replace(theirs, rcode="NOERROR", flags=flags, answer=frozenset(chain), authority=frozenset())


@_difference(
    "truncation", "NSD compresses more names, and leaves out other addresses of nameservers that do not fit, or records"
)
def _truncate(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    nothing: frozenset[Record] = frozenset()
    limit = min(max(query.size or 0, 512), 1232)
    for full in () if query.over_tcp else _asked_instead(them, query.changed(over_tcp=True)):
        for whole in (full, *_stop_at_the_end_of_the_zone(query, full, them)):
            if _size(whole, query) > limit:
                flags = whole.flags | {"TC"}
                fitting = _with_what_fits(whole, query, limit)
                cut = replace(whole, flags=flags, answer=nothing, authority=nothing, additional=nothing)
                yield fitting if _size(fitting, query) <= limit else cut


def _with_what_fits(whole: Seen, query: RandomQuery, limit: int) -> Seen:
    """The reply with as many of the addresses of its nameservers as fit, in the order of the configuration."""
    fitting = replace(whole, additional=frozenset())
    rrsets = {(len(record.owner.labels[0]), record.owner, record.rdtype) for record in whole.additional}
    for _, owner, rdtype in sorted(rrsets):
        rrset = {record for record in whole.additional if (record.owner, record.rdtype) == (owner, rdtype)}
        longer = replace(fitting, additional=fitting.additional | rrset)
        fitting = longer if _size(longer, query) <= limit else fitting
    return fitting


@_difference("TCP keepalive", "NSD does not have it; here a client that asks over TCP is told (RFC 7828)")
def _tell_keepalive(query: RandomQuery, theirs: Seen, them: Client) -> Iterator[Seen]:
    if query.option == _KEEPALIVE and query.over_tcp and theirs.edns and theirs.rcode != "BADVERS":
        yield replace(theirs, options=theirs.options | {(_KEEPALIVE, _TEN_SECONDS)})


_IN = dns.rdataclass.IN
_ZONE = (dns.rdatatype.SOA, dns.rdataclass.IN)
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
_NOT_DATA = (41, 128, 249, 250)
"""OPT, NXNAME, TKEY, TSIG."""
_OBSOLETE = (dns.rdatatype.MAILB, dns.rdatatype.MAILA)
_NOWHERE = 65279
"""A type that no name has."""
_OTHER, _NOT_AUTHORITATIVE, _PROHIBITED, _INVALID_TYPE, _NOT_SUPPORTED = 0, 20, 18, 30, 21
"""Extended errors (RFC 8914, section 4; RFC 9824)."""
_MALFORMED = (
    (_OTHER, "a DNS cookie must have 8 or 16 to 40 octets"),
    (_OTHER, "an EDNS option is cut short"),
)
_REASONS = {
    4: ((_PROHIBITED, "this server is the primary of the zone"), (_NOT_AUTHORITATIVE, "")),
    5: (
        (_PROHIBITED, "an update must be signed with the key of a token"),
        (_NOT_AUTHORITATIVE, "an update must name a zone that is served here"),
        (_OTHER, "the zone section of an update must ask for a SOA"),
    ),
}
"""Extended errors of refused messages, by their opcode, and of malformed ones."""
_KEEPALIVE, _TEN_SECONDS = 11, (100).to_bytes(2, "big")


def _with_error(reply: Seen, code: int, text: str = "") -> Seen:
    return replace(reply, options=reply.options | {(EXTENDED_ERROR, code.to_bytes(2, "big") + text.encode())})


def _asked_instead(them: Client, query: RandomQuery) -> Iterator[Seen]:
    """What NSD replies to another query, with an rcode of 0, which it insists on."""
    reply = them.ask(query.changed(flags=query.flags & ~0xF))
    if reply is not None:
        yield reply


def _is_about_a_zone(query: RandomQuery) -> bool:
    return query.opcode == 0 and query.qclass == _IN and query.zone is not None


def _size(reply: Seen, query: RandomQuery) -> int:
    """Octets of the reply if each name is written once, the question's included, in owners and in a few types."""
    known = _suffixes(query.name)
    size = 12 + len(reply.question)
    for record in (*reply.answer, *reply.authority, *reply.additional):
        size += _compressed(record.owner, known) + struct.calcsize("!HHIH") + len(record.rdata)
        at = 0
        for _ in range(_NAMES_IN_RDATA.get(record.rdtype, 0)):
            name, octets = dns.name.from_wire(record.rdata, at)
            size += _compressed(name, known) - octets
            at += octets
    options = (4 + (data[-1] if code == COOKIE else len(data)) for code, data in reply.options if code != _KEEPALIVE)
    return size + (11 + sum(options) if reply.edns else 0)


def _compressed(name: dns.name.Name, known: set[dns.name.Name]) -> int:
    """Octets of a name, its end replaced by a pointer to where that was before. From now on it is *known*."""
    new = _suffixes(name) - known
    known |= new
    return sum(len(suffix.labels[0]) + 1 for suffix in new) + (2 if len(new) < len(name.labels) - 1 else 1)


def _suffixes(name: dns.name.Name) -> set[dns.name.Name]:
    """The name and all that it is below, but for the root."""
    return {name.split(depth)[1] for depth in range(2, len(name.labels) + 1)}


_NAMES_IN_RDATA: dict[int, int] = {dns.rdatatype.NS: 1, dns.rdatatype.CNAME: 1, dns.rdatatype.SOA: 2}
"""How many names are compressed that begin the data of these types."""
