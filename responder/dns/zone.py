"""
Zones in memory: which names exist, what they hold, and the compiled answer to every question about them.

Theory of operation
-------------------
A zone consists of its static records (from the configuration), the challenge names that are granted, and the values at
these names. Only `Zone.apply` changes it, one committed change at a time. There is no I/O and no clock here.

`Zones.nodes` is one table for all zones. It maps each name that exists, in wire form and lower case, to its `ZoneNode`.
A name exists if it is granted, holds records, or has a name below it that exists: such a name is called an empty
non-terminal, and is not an NXDOMAIN (RFC 8020). So each node counts its children. When a name begins or ceases to
exist, the counts above it change, up to the first name that exists for another reason.

    nodes[name] -> ZoneNode(answers, granted, children)
                            |
                            +-- UNASKED: records, but nothing is compiled yet --(first query)-> {type and class: Answer}
                            +-- NO_ANSWERS: no records                        <-(a change)-----

Answers are compiled where records change, which means two things. First, an `Answer` depends on nothing but the records
of the zone: it is made once and used for every query until they change, so a query costs some look-ups in tables
(`exchange`). Second, a change never edits an answer. It replaces the node of the name by one that is marked `UNASKED`,
and the next query for that name compiles the answers of all its types. Most names are never asked for between two
changes: marking takes 1 microsecond for each name, compiling 13, and a snapshot may have a million names.

Some answers do not belong to one name, and are kept beside the table. Any change may affect them, so each change throws
them away:

- Negative answers (NXDOMAIN, and NOERROR without data) hold only the SOA. They depend on the serial, and on the length
  of the name, because the pointers of compressed names count from the start of the message. There are at most 255 for
  each of the two, and they are valid for one serial.
- A CNAME is answered together with the records that it leads to, which belong to other names (`Zone.chase`).

The nodes of names without answers are shared objects, so a million granted names without values cost little more than
their entries in the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from responder.dns.rrset import RRset, RRType, txt_rdata
from responder.dns.wire import Answer, Rcode, compile_answer
from responder.names import MAX_LABEL, MAX_NAME, Name

SERIAL_MODULUS = 1 << 32
"""Serials have 32 bits on the wire (RFC 1982). The store counts without wrapping."""

MAX_CNAME_CHAIN = 8
"""CNAMEs that are followed in one zone. No sensible configuration needs more, and a loop must end."""

NO_ANSWERS: Mapping[bytes, Answer] = {}
"""The answers of a name without records. One object for all of them, so that a million granted names need no more."""


class _Unasked(dict[bytes, Answer]):
    """The type of `UNASKED`, so that it is not just another empty dictionary. A query finds nothing in it."""


UNASKED: Mapping[bytes, Answer] = _Unasked()
"""Stands for the answers of a name with records after each change, until the first query has them compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """The configured part of a zone: its apex, its records (SOA included), and the TTL of TXT values in seconds."""

    apex: Name
    rrsets: tuple[RRset, ...]
    txt_ttl: int

    @property
    def digest(self) -> str:
        """SHA-256 of the whole, in hexadecimal digits. The order of the records does not matter."""
        parts = sorted((r.owner.wire, int(r.type), r.ttl, sorted(r.rdatas)) for r in self.rrsets)
        return hashlib.sha256(repr((self.apex.wire, self.txt_ttl, parts)).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    A change of one zone: the values that some of its challenge names now hold, or None for a name that is not granted.

    A change has the new state of each name, and not the steps to it. So a receiver that missed a change is right again
    after a later one. *previous* is the serial before the change, *serial* the one after it.
    """

    apex: Name
    previous: int
    serial: int
    names: Mapping[Name, tuple[str, ...] | None]

    def pieces(self, size: int) -> Iterator[Change]:
        """The change in several parts, with at most *size* names each."""
        names = list(self.names.items())
        for at in range(0, max(len(names), 1), size):
            yield replace(self, names=dict(names[at : at + size]))


@dataclass(frozen=True, slots=True)
class ZoneNode:
    """
    A name that exists: what it holds, and why it exists.

    The keys of *answers* are the four octets of type and class at the end of a question. `UNASKED` means that
    `Zone.answers` has to compile them. *granted* is whether a grant has the name, *children* the number of names that
    exist directly below it.
    """

    answers: Mapping[bytes, Answer]
    granted: bool
    children: int


class Zones:
    """All zones that are served. *nodes* is the table of all names that exist: it is enough for most queries."""

    def __init__(self, statics: Iterable[Static] = ()) -> None:
        # Python enlarges a full dictionary in one go, and no query is answered meanwhile: 0.1 s at 700,000 names, and
        # half as long at half as many. Several smaller tables would avoid that, but cost each query one more look-up.
        self.nodes: dict[bytes, ZoneNode] = {}
        self._zones = {static.apex.wire: Zone(static, self.nodes) for static in statics}

    def __iter__(self) -> Iterator[Zone]:
        return iter(self._zones.values())

    def find(self, qname: bytes) -> Zone | None:
        """The zone that *qname* (wire form in lower case) belongs to; the deepest one if there are several."""
        at = 0
        while True:
            zone = self._zones.get(qname[at:])
            if zone is not None or not qname[at]:
                return zone
            at += 1 + qname[at]

    def answer(self, qname: bytes, key: bytes, node: ZoneNode | None) -> Answer | None:
        """
        The answer for *qname* and the ordinary type in *key*, if `node.answers` did not have it.

        *node* is the node of *qname*, None if there is none. The answer may have to be compiled first, or be negative.
        Returns None if *qname* is not in any zone, or is malformed.
        """
        at = 0
        while (zone := self._zones.get(qname[at:])) is None:
            length = qname[at] if at < len(qname) else 0
            if not length or length > MAX_LABEL:
                return None
            at += 1 + length
        if node is None:
            return zone.negative(Rcode.NXDOMAIN, qname) if len(qname) <= MAX_NAME else None
        answers = zone.answers(qname, node)
        if key in answers:
            return answers[key]
        return zone.chase(qname, key) if _CNAME in answers else zone.negative(Rcode.NOERROR, qname)

    def take_counts(self) -> dict[tuple[str, int], int]:
        """The number of uses of answers since the last call, by the apex of the zone and the rcode."""
        taken = {}
        for zone in self:
            for rcode, count in zone.counts.items():
                taken[str(zone.apex), int(rcode)], count[0] = count[0], 0
        return taken

    def apply(self, change: Change) -> None:
        """Apply *change* to its zone. A change of a zone that is not served here has no effect."""
        zone = self._zones.get(change.apex.wire)
        if zone is not None:
            zone.apply(change)

    def discard(self, count: int) -> bool:
        """Free *count* names, after these zones are no longer served. Returns whether there are more."""
        for _ in range(min(count, len(self.nodes))):
            self.nodes.popitem()
        return bool(self.nodes)


class Zone:
    """One zone. Its nodes are in the table that all zones share."""

    def __init__(self, static: Static, nodes: dict[bytes, ZoneNode]) -> None:
        self.apex = static.apex
        self.serial = 0
        self.counts = {rcode: [0] for rcode in (Rcode.NOERROR, Rcode.NXDOMAIN)}
        self._txt_ttl = static.txt_ttl
        self._nodes = nodes
        self._static: dict[bytes, dict[int, RRset]] = {}
        self._values: dict[bytes, tuple[str, ...]] = {}
        self._negatives: dict[tuple[Rcode, int], Answer] = {}
        self._chased: dict[bytes, Mapping[bytes, Answer]] = {}
        for rrset in static.rrsets:
            self._static.setdefault(rrset.owner.wire, {})[rrset.type] = rrset
        for owner in self._static:
            self._set_node(owner, granted=False)

    def lookup(self, qname: bytes, qtype: int) -> Answer:
        """The answer to a question of class IN for *qname* (wire form in lower case), which is in this zone."""
        node = self._nodes.get(qname)
        if node is None:
            return self.negative(Rcode.NXDOMAIN, qname)
        answers = self.answers(qname, node)
        answer = answers.get(_key(qtype))
        if answer is not None:
            return answer
        if qtype == RRType.ANY and answers:
            return next(iter(answers.values()))  # RFC 8482, section 4.1: one RRset is enough
        return self.chase(qname, _key(qtype)) if _CNAME in answers else self.negative(Rcode.NOERROR, qname)

    def may_be_stale(self, qname: bytes, qtype: int) -> bool:
        """Whether the answer for *qname* depends on grants or values, which may have changed on another node."""
        if qtype not in (RRType.TXT, RRType.ANY):
            return False
        node = self._nodes.get(qname)
        return node is None or node.granted or _CNAME in self.answers(qname, node)

    def answers(self, owner: bytes, node: ZoneNode) -> Mapping[bytes, Answer]:
        """The answers of *node*, the node of *owner*. They are compiled now if this is the first query for them."""
        if node.answers is UNASKED:
            node = self._nodes[owner] = replace(node, answers=self._compile(owner))
        return node.answers

    def apply(self, change: Change) -> None:
        """Take over the states and the serial of *change*."""
        self._chased.clear()  # a CNAME may lead to any of these names
        for name, values in change.names.items():
            self._set_values(name.wire, values)
        if change.serial != self.serial:  # all parts of a change have the same one, and so has a whole snapshot
            self.serial = change.serial
            self._negatives.clear()
            self._set_node(self.apex.wire, granted=self._nodes[self.apex.wire].granted)

    def rrsets(self) -> Iterator[RRset]:
        """All RRsets of the zone, the SOA first, in the order of zone text."""
        for owner, types in self._static.items():
            for rrtype in types:
                yield self._rrset(owner, rrtype)
        for owner in self._values:
            if RRType.TXT not in self._static.get(owner, {}):
                yield self._rrset(owner, RRType.TXT)

    def _rrset(self, owner: bytes, rrtype: int) -> RRset:
        """The present RRset of *owner* with that type. Raises `KeyError` if there is none."""
        if rrtype == RRType.TXT and owner in self._values:
            static = self._static.get(owner, {}).get(rrtype)
            values = tuple(txt_rdata(value) for value in self._values[owner])
            return RRset(Name(owner), RRType.TXT, self._txt_ttl, (*(static.rdatas if static else ()), *values))
        rrset = self._static[owner][rrtype]
        if rrtype == RRType.SOA:
            return replace(rrset, rdatas=(_with_serial(rrset.rdatas[0], self.serial),))
        return rrset

    def negative(self, rcode: Rcode, qname: bytes) -> Answer:
        """The NXDOMAIN or NODATA for *qname*, with the SOA (RFC 2308, section 2). Names of one length share it."""
        answer = self._negatives.get((rcode, len(qname)))
        if answer is None:
            before = len(qname) - len(self.apex.wire)
            answer = self._answer(self.apex.wire, rcode, before=before, authority=(self._negative_soa(),))
            self._negatives[rcode, len(qname)] = answer
        return answer

    def _answer(
        self,
        qname: bytes,
        rcode: Rcode = Rcode.NOERROR,
        *,
        before: int = 0,
        answer: Sequence[RRset] = (),
        authority: Sequence[RRset] = (),
        additional: Sequence[RRset] = (),
    ) -> Answer:
        """The same as `compile_answer`; uses of the answer are counted with the others of this zone."""
        return compile_answer(
            qname,
            rcode,
            before=before,
            answer=answer,
            authority=authority,
            additional=additional,
            count=self.counts[rcode],
        )

    def _negative_soa(self) -> RRset:
        soa = self._rrset(self.apex.wire, RRType.SOA)
        minimum = int.from_bytes(soa.rdatas[0][-4:], "big")
        return replace(soa, ttl=min(soa.ttl, minimum))  # RFC 2308, section 3

    def chase(self, qname: bytes, key: bytes) -> Answer:
        """
        The CNAME at *qname* with the records of the type in *key* that it leads to (RFC 1034, section 4.3.2, step 3a).

        Between two changes this is compiled once for each type at the end of the chain, and once for all other types.
        """
        chased = self._chased.get(qname)
        if chased is None:
            chased = self._chased[qname] = self._follow(qname)
        return chased.get(key) or chased[_ANY_OTHER]

    def _follow(self, qname: bytes) -> Mapping[bytes, Answer]:
        chain: dict[bytes, RRset] = {}
        owner = qname
        while RRType.CNAME in self._static.get(owner, {}) and owner not in chain and len(chain) < MAX_CNAME_CHAIN:
            chain[owner] = self._rrset(owner, RRType.CNAME)
            owner = chain[owner].rdatas[0].lower()
        aliases = [*chain.values()]
        endless = owner in chain or RRType.CNAME in self._static.get(owner, {})
        if endless or not Name(owner).is_within(self.apex):
            return {_ANY_OTHER: self._answer(qname, answer=aliases)}
        rcode = Rcode.NOERROR if owner in self._nodes else Rcode.NXDOMAIN  # of the last name (RFC 2308, section 2.1)
        chased = {_ANY_OTHER: self._answer(qname, rcode, answer=aliases, authority=(self._negative_soa(),))}
        for rrset in self._rrsets_at(owner):
            chased[_key(rrset.type)] = self._answer(qname, answer=[*aliases, rrset], additional=self._glue(rrset))
        return chased

    def _set_values(self, owner: bytes, values: tuple[str, ...] | None) -> None:
        if not Name(owner).is_within(self.apex):
            return
        if values:
            self._values[owner] = values
        else:
            self._values.pop(owner, None)
        self._set_node(owner, granted=values is not None)

    def _set_node(self, owner: bytes, *, granted: bool) -> None:
        """Mark the answers of *owner* as not compiled. The name, and names above it, may begin or cease to exist."""
        old = self._nodes.get(owner)
        answers = UNASKED if owner in self._values or owner in self._static else NO_ANSWERS
        node = _node(answers, granted, old.children if old else 0)
        if node is not _ABSENT:
            self._nodes[owner] = node
            if old is None and owner != self.apex.wire:
                self._count_child(_parent(owner), 1)
        elif old is not None:
            del self._nodes[owner]
            self._count_child(_parent(owner), -1)

    def _count_child(self, owner: bytes, step: int) -> None:
        old = self._nodes.get(owner)
        if old is None:
            self._nodes[owner] = _node(NO_ANSWERS, False, 1)  # an empty non-terminal
        else:
            node = _node(old.answers, old.granted, old.children + step)
            if node is not _ABSENT:
                self._nodes[owner] = node
                return
            del self._nodes[owner]
        self._count_child(_parent(owner), step)  # ends at the apex, which has records and so is always there

    def _compile(self, owner: bytes) -> Mapping[bytes, Answer]:
        return {
            _key(rrset.type): self._answer(owner, answer=(rrset,), additional=self._glue(rrset))
            for rrset in self._rrsets_at(owner)
        }

    def _rrsets_at(self, owner: bytes) -> list[RRset]:
        """The RRsets of *owner*: static records first, and no values if there is a CNAME."""
        types = dict.fromkeys(self._static.get(owner, {}))
        if owner in self._values and RRType.CNAME not in types:
            types[RRType.TXT] = None
        return [self._rrset(owner, rrtype) for rrtype in types]

    def _glue(self, rrset: RRset) -> list[RRset]:
        """The addresses of the nameservers in *rrset*, if it has any (RFC 1034, section 4.3.2, step 6)."""
        return [
            address
            for target in (rrset.rdatas if rrset.type == RRType.NS else ())
            for rrtype, address in self._static.get(target.lower(), {}).items()
            if rrtype in (RRType.A, RRType.AAAA)
        ]


_SHARED, _SHARED_UNASKED = (
    {(granted, count): ZoneNode(answers, granted, count) for granted in (False, True) for count in range(16)}
    for answers in (NO_ANSWERS, UNASKED)
)
_ABSENT = _SHARED[False, 0]
_CNAME = RRType.CNAME.to_bytes(2, "big") + b"\0\1"
_ANY_OTHER = b""
"""A key for all types that have no answer of their own."""


def _node(answers: Mapping[bytes, Answer], granted: bool, children: int) -> ZoneNode:  # noqa: FBT001
    """A node. Nodes without answers are shared objects; `_ABSENT` is that of a name with no reason to exist."""
    if children < 16 and not answers:
        return (_SHARED if answers is NO_ANSWERS else _SHARED_UNASKED)[granted, children]
    return ZoneNode(answers, granted, children)


def _key(rrtype: int) -> bytes:
    """The key of *rrtype*: the last four octets of a question for it, in class IN."""
    return rrtype.to_bytes(2, "big") + b"\0\1"


def _parent(wire: bytes) -> bytes:
    return wire[1 + wire[0] :]


def _with_serial(soa: bytes, serial: int) -> bytes:
    return soa[:-20] + (serial % SERIAL_MODULUS).to_bytes(4, "big") + soa[-16:]
