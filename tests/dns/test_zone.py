"""What exists, and what is answered about it: expectations are zone text."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.dns.exchange import Exchange
from responder.dns.wire import Transport
from responder.dns.zone import Change, Zones
from responder.dns.zonetext import parse_records
from responder.errors import InvalidValue
from responder.names import Name
from responder.tokens.values import parse_value
from tests.support.zones import APEX, CLIENT, GLUE, NS, OTHER, SERIAL, SOA, VALUE, ask, challenge, static, text, zones

TWO = "_acme-challenge.two.acme.example.com."


@pytest.mark.parametrize(
    ("name", "rrtype", "rcode", "answer", "authority", "additional"),
    [
        ("acme.example.com", "SOA", "NOERROR", [SOA], [], []),
        ("acme.example.com", "NS", "NOERROR", [NS], [], [GLUE, "ns1.acme.example.com. 3600 IN AAAA 2001:db8::1"]),
        ("acme.example.com", "ANY", "NOERROR", [SOA], [], []),
        ("acme.example.com", "DS", "NOERROR", [], [SOA], []),
        ("acme.example.com", "TXT", "NOERROR", [], [SOA], []),
        (TWO, "TXT", "NOERROR", [f'{TWO} 1 IN TXT "{OTHER}"', f'{TWO} 1 IN TXT "{VALUE}"'], [], []),
        (TWO, "A", "NOERROR", [], [SOA], []),
        (TWO, "CAA", "NOERROR", [], [SOA], []),
        (TWO, "RRSIG", "NOERROR", [], [SOA], []),
        (TWO, "TYPE65280", "NOERROR", [], [SOA], []),
        (TWO, "TYPE0", "NOERROR", [], [SOA], []),
        ("_acme-challenge.none.acme.example.com", "TXT", "NOERROR", [], [SOA], []),
        ("_acme-challenge.none.acme.example.com", "ANY", "NOERROR", [], [SOA], []),
        ("none.acme.example.com", "A", "NOERROR", [], [SOA], []),
        ("deep.acme.example.com", "TXT", "NOERROR", [], [SOA], []),
        ("ent.acme.example.com", "TXT", "NOERROR", [], [SOA], []),
        ("leaf.ent.acme.example.com", "TXT", "NOERROR", ['leaf.ent.acme.example.com. 60 IN TXT "leaf"'], [], []),
        ("x.leaf.ent.acme.example.com", "TXT", "NXDOMAIN", [], [SOA], []),
        ("x." + TWO, "TXT", "NXDOMAIN", [], [SOA], []),
        ("nope.acme.example.com", "A", "NXDOMAIN", [], [SOA], []),
        ("*.acme.example.com", "A", "NXDOMAIN", [], [SOA], []),
        (
            "www.acme.example.com",
            "A",
            "NOERROR",
            [GLUE, "www.acme.example.com. 60 IN CNAME ns1.acme.example.com."],
            [],
            [],
        ),
        (
            "www.acme.example.com",
            "CNAME",
            "NOERROR",
            ["www.acme.example.com. 60 IN CNAME ns1.acme.example.com."],
            [],
            [],
        ),
        (
            "www.acme.example.com",
            "TXT",
            "NOERROR",
            ["www.acme.example.com. 60 IN CNAME ns1.acme.example.com."],
            [SOA],
            [],
        ),
        ("away.acme.example.com", "A", "NOERROR", ["away.acme.example.com. 60 IN CNAME www.example.org."], [], []),
        (
            "lost.acme.example.com",
            "A",
            "NXDOMAIN",
            ["lost.acme.example.com. 60 IN CNAME nowhere.acme.example.com."],
            [SOA],
            [],
        ),
        (
            "home.acme.example.com",
            "NS",
            "NOERROR",
            [NS, "home.acme.example.com. 60 IN CNAME acme.example.com."],
            [],
            [GLUE, "ns1.acme.example.com. 3600 IN AAAA 2001:db8::1"],
        ),
        ("xacme.example.com", "A", "REFUSED", [], [], []),
        ("example.com", "SOA", "REFUSED", [], [], []),
        (".", "NS", "REFUSED", [], [], []),
    ],
)
def test_answers(
    name: str, rrtype: str, rcode: str, answer: list[str], authority: list[str], additional: list[str]
) -> None:
    """Every name and type gets the answer that RFC 1034, 2308, 8020 and 8482 ask for."""
    reply = ask(zones(), name, rrtype)

    assert rcode == dns.rcode.to_text(reply.rcode())
    assert sorted(answer) == text(reply.answer)
    assert authority == text(reply.authority)
    assert sorted(additional) == text(reply.additional)


def test_cname_loop_ends() -> None:
    """A CNAME loop in the configuration costs a bounded answer, not the process."""
    reply = ask(zones(), "loop.acme.example.com", "A")

    assert 2 == len(reply.answer)
    assert [] == reply.authority


def test_aliases_are_chased_once() -> None:
    """The answer at the end of a CNAME is kept until the next change, for the types there are and for all others."""
    served = zones()
    zone = served.find(APEX.wire)
    assert zone is not None
    www = Name.parse("www.acme.example.com").wire
    types = {rrtype: struct.pack("!HH", rrtype, 1) for rrtype in (1, 16, 28, 33, 65280)}
    first = {rrtype: zone.chase(www, key) for rrtype, key in types.items()}

    assert all(zone.chase(www, key) is first[rrtype] for rrtype, key in types.items())
    assert 3 == len({id(answer) for answer in first.values()})
    served.apply(Change(apex=APEX, previous=7, serial=8, names={}))
    assert zone.chase(www, types[16]) is not first[16]
    assert [SOA.replace(" 7 ", " 8 ")] == text(ask(served, "www.acme.example.com", "TXT").authority)


def test_one_negative_answer_does_not_spoil_another() -> None:
    """A negative answer is remembered for names of one length; none of them may show in it but the apex."""
    served = zones()
    for name in ("x.ns1.acme.example.com", "abcde.acme.example.com", "a.bcd.acme.example.com"):
        assert [SOA] == text(ask(served, name, "TXT").authority)


def test_change_carries_state() -> None:
    """A change replaces what a name holds, and None ends the name and the empty non-terminals above it."""
    served = zones()

    served.apply(Change(apex=APEX, previous=7, serial=8, names={challenge("two"): (OTHER,), challenge("a.deep"): None}))

    assert [f'{TWO} 1 IN TXT "{OTHER}"'] == text(ask(served, TWO, "TXT").answer)
    assert dns.rcode.NXDOMAIN == ask(served, "deep.acme.example.com", "A").rcode()
    assert [SOA.replace(" 7 ", " 8 ")] == text(ask(served, "acme.example.com", "SOA").answer)
    assert [SOA.replace(" 7 ", " 8 ")] == text(ask(served, "nope.acme.example.com", "A").authority)


def test_answers_are_compiled_when_asked_for() -> None:
    """Until then, and from every change on, names cost no more than the table entry; any type makes up for it."""
    served = zones()
    two, leaf = challenge("two").wire, Name.parse("leaf.ent.acme.example.com").wire
    change = Change(apex=APEX, previous=7, serial=8, names={challenge("two"): (OTHER,)})

    for rrtype in ("TXT", "A", "ANY", "TYPE65280"):
        served.apply(change)
        assert served.nodes[two] == replace(served.nodes[leaf], granted=True)
        assert not served.nodes[two].answers
        ask(served, TWO, rrtype)
        assert served.nodes[two].answers


def test_name_above_another_outlives_it() -> None:
    """A granted name with a granted name below it goes on existing when either goes."""
    upper, lower = challenge("x"), Name.from_labels([b"below", *challenge("x").labels])
    served = zones({upper: (), lower: (VALUE,)})

    served.apply(Change(apex=APEX, previous=7, serial=8, names={upper: None}))

    assert dns.rcode.NOERROR == ask(served, str(upper), "TXT").rcode()
    served.apply(Change(apex=APEX, previous=8, serial=9, names={lower: None}))
    assert dns.rcode.NXDOMAIN == ask(served, str(upper), "TXT").rcode()
    assert dns.rcode.NXDOMAIN == ask(served, "x.acme.example.com", "TXT").rcode()


def test_static_records_survive_grants() -> None:
    """A grant for a name with static records adds to them, and takes only its own away."""
    leaf = Name.parse("leaf.ent.acme.example.com")
    served = zones({leaf: (VALUE,)})

    assert 1 == sum(rrset.owner == leaf for zone in served for rrset in zone.rrsets())
    assert 2 == len(ask(served, str(leaf), "TXT").answer[0])
    served.apply(Change(apex=APEX, previous=7, serial=8, names={leaf: None}))
    assert ['leaf.ent.acme.example.com. 60 IN TXT "leaf"'] == text(ask(served, str(leaf), "TXT").answer)


def test_strangers_are_ignored() -> None:
    """A change for another zone, or for names outside the zone, changes nothing."""
    served, before = zones(), len(zones().nodes)

    served.apply(Change(apex=Name.parse("other.org"), previous=0, serial=1, names={Name.parse("x.other.org"): ()}))
    served.apply(Change(apex=APEX, previous=7, serial=8, names={Name.parse("x.other.org"): (VALUE,)}))

    assert before == len(served.nodes)


def test_values_at_the_apex() -> None:
    """The apex may be a challenge name: its values stand beside its records, and it stays when the grant ends."""
    served = zones()
    apex = f"{APEX}."
    kept = {rrtype: text(ask(served, apex, rrtype).answer) for rrtype in ("SOA", "NS", "ANY")}

    served.apply(Change(apex=APEX, previous=7, serial=7, names={APEX: (VALUE,)}))

    assert [f'{apex} 1 IN TXT "{VALUE}"'] == text(ask(served, apex, "TXT").answer)
    assert kept == {rrtype: text(ask(served, apex, rrtype).answer) for rrtype in kept}
    served.apply(Change(apex=APEX, previous=7, serial=8, names={}))
    assert [f'{apex} 1 IN TXT "{VALUE}"'] == text(ask(served, apex, "TXT").answer)
    served.apply(Change(apex=APEX, previous=8, serial=8, names={APEX: ()}))
    assert [] == ask(served, apex, "TXT").answer
    served.apply(Change(apex=APEX, previous=8, serial=7, names={APEX: None}))
    assert dns.rcode.NOERROR == ask(served, apex, "TXT").rcode()
    assert kept == {rrtype: text(ask(served, apex, rrtype).answer) for rrtype in kept}


def test_values_at_an_apex_with_texts() -> None:
    """The values come after the texts of the configuration, which stay."""
    whole = static()
    served = Zones(
        [replace(whole, rrsets=(*whole.rrsets, *parse_records('@ 60 TXT "v=spf1 -all"', APEX, default_ttl=60)))]
    )
    apex = f"{APEX}."

    served.apply(Change(apex=APEX, previous=0, serial=1, names={APEX: (VALUE,)}))

    assert [f'{apex} 1 IN TXT "{VALUE}"', f'{apex} 1 IN TXT "v=spf1 -all"'] == text(ask(served, apex, "TXT").answer)
    served.apply(Change(apex=APEX, previous=1, serial=2, names={APEX: None}))
    assert [f'{apex} 60 IN TXT "v=spf1 -all"'] == text(ask(served, apex, "TXT").answer)


def test_deepest_zone_wins() -> None:
    """Of several zones, the deepest that holds the name answers."""
    inner = Name.parse("inner.acme.example.com")
    outer_static = static()
    soa = outer_static.rrsets[0]
    inner_static = type(outer_static)(apex=inner, rrsets=(type(soa)(inner, soa.type, soa.ttl, soa.rdatas),), txt_ttl=1)
    served = Zones([outer_static, inner_static])

    names = ("x.inner.acme.example.com", "x.acme.example.com", "example.com")
    found = [served.find(Name.parse(name).wire) for name in names]

    assert [inner, APEX, None] == [zone and zone.apex for zone in found]


def test_rrsets_list_the_whole_zone() -> None:
    """`rrsets` lists static records and values, the SOA first and with the current serial."""
    zone = next(iter(zones()))
    rrsets = list(zone.rrsets())

    assert SERIAL == int.from_bytes(rrsets[0].rdatas[0][-20:-16], "big")
    assert {challenge("two"), challenge("a.deep")} < {rrset.owner for rrset in rrsets}


def test_million_names_share_nodes() -> None:
    """Names without values share their node, so that each costs its table entry only."""
    served = zones({challenge(str(n)): () for n in range(100)})

    assert 1 == len({id(served.nodes[challenge(str(n)).wire]) for n in range(100)})


@pytest.mark.parametrize("value", ["", "a" * 256, "new\nline", "caf\u00e9", "tab\t", "\x7f"])
def test_refuses_values(value: str) -> None:
    """A value outside 1 to 255 printable ASCII characters is refused."""
    with pytest.raises(InvalidValue, match="1 to 255 printable ASCII"):
        parse_value(value)


LABELS = st.sampled_from(["a", "b", "c"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: Name.parse(".".join(labels) + ".acme.example.com"))
STATES = st.one_of(st.none(), st.lists(st.sampled_from(["v1", "v2"]), unique=True).map(tuple))


@given(st.lists(st.dictionaries(NAMES, STATES, max_size=5), max_size=8))
def test_history_does_not_matter(history: list[dict[Name, tuple[str, ...] | None]]) -> None:
    """However a zone came to its state, it is the zone that got that state at once; existence is exact (RFC 8020)."""
    served = Zones([static()])
    state: dict[Name, tuple[str, ...] | None] = {}
    for serial, names in enumerate(history, 1):
        served.apply(Change(apex=APEX, previous=serial - 1, serial=serial, names=names))
        state |= names
    fresh = Zones([static()])
    fresh.apply(Change(apex=APEX, previous=0, serial=len(history), names=state))

    existing = {name for name, values in state.items() if values is not None}
    assert set(fresh.nodes) == set(served.nodes)
    for name in state:
        exists = any(other.is_within(name) for other in existing)
        assert exists == (name.wire in served.nodes)
        values = state[name] or ()
        answer = ask(served, str(name), "TXT", transport=Transport.TCP).answer
        assert sorted(f'{name.fqdn} 1 IN TXT "{value}"' for value in values) == text(answer)


ALIASES = ("one", "two", "chain", "below", "none")


@given(st.lists(st.dictionaries(NAMES, STATES, max_size=3), max_size=6))
def test_aliases_follow_changes(history: list[dict[Name, tuple[str, ...] | None]]) -> None:
    """What an alias leads to is what is there now, whoever asked before, for names that come, change and go."""
    records = parse_records(
        "one CNAME a\ntwo CNAME b.a\nchain CNAME one\nbelow CNAME c.b.a\nnone CNAME nowhere", APEX, default_ttl=60
    )
    aliased = replace(static(), rrsets=(*static().rrsets, *records))
    served = Zones([aliased])
    state: dict[Name, tuple[str, ...] | None] = {}
    for serial, names in enumerate(history, 1):
        for piece in Change(apex=APEX, previous=serial - 1, serial=serial, names=names).pieces(1):
            served.apply(piece)
            state |= piece.names
            fresh = Zones([aliased])
            fresh.apply(Change(apex=APEX, previous=0, serial=serial, names=state))
            for alias, rrtype in itertools.product(ALIASES, ("TXT", "A", "TYPE65280")):
                query = dns.message.make_query(f"{alias}.acme.example.com", rrtype, use_edns=0, id=1).to_wire()
                replies = [Exchange(zone).respond(query, Transport.UDP, CLIENT) for zone in (served, fresh)]
                assert replies[0] == replies[1]


def test_pieces() -> None:
    """A change in pieces carries the same, each piece the serials of the whole; even an empty one has a piece."""
    whole = Change(apex=APEX, previous=7, serial=8, names={challenge(label): () for label in "abcde"})

    pieces = [*whole.pieces(2)]

    assert [2, 2, 1] == [len(piece.names) for piece in pieces]
    assert whole.names == {name: values for piece in pieces for name, values in piece.names.items()}
    assert {(APEX, 7, 8)} == {(piece.apex, piece.previous, piece.serial) for piece in pieces}
    assert [replace(whole, names={})] == [*replace(whole, names={}).pieces(2)]


def test_discard() -> None:
    """Zones that are served no more can be freed a little at a time."""
    served = zones()
    count = len(served.nodes)

    assert [True, False, False] == [served.discard(count - 1), served.discard(5), served.discard(5)]
    assert not served.nodes


# The digest of the static records


def test_digest() -> None:
    """It is about every record and TTL, and not about their order."""
    whole = static()
    first, *others = whole.rrsets
    shorter = replace(whole, rrsets=(replace(first, ttl=first.ttl + 1), *others))

    assert whole.digest == replace(whole, rrsets=tuple(reversed(whole.rrsets))).digest
    assert 4 == len(
        {each.digest for each in (whole, shorter, replace(whole, txt_ttl=2), replace(whole, rrsets=(first,)))}
    )
