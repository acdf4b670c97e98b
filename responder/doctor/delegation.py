"""
Whether the zone above sends resolvers to us: the same NS records and glue at every one of its servers, and no DS.

Its servers are asked one by one, as resolvers ask them: one that lags behind fails some validations and not others.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dns.rdtypes.ANY.DS import DS
from dns.rdtypes.ANY.NS import NS

from responder.config import ZoneSettings
from responder.doctor.questions import Address, Failure, Outcome, Reply, Server, from_dnspython
from responder.doctor.report import Check, Finding, Fix, catch_up, cross, dig, note, tick, witnesses
from responder.doctor.walk import Walk
from responder.names import Name

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _View:
    """
    What one server of the parent tells resolvers: no *nameservers* means no delegation. One that *refers* gives the
    glue along; one that holds our zone, too, answers by itself, and need not.
    """

    server: Server
    nameservers: frozenset[Name]
    refers: bool
    glue: Mapping[Name, frozenset[Address]]
    ds: tuple[str, ...]


async def examine(walk: Walk, zone: ZoneSettings) -> list[Finding]:
    """Ask every server of the zone above about *zone*, and compare what they say with the settings."""
    parent = await walk.zone_of(zone.name.parent)
    servers = await walk.servers_of(parent) if parent else ()
    if parent is None or not servers:
        return [_no_parent(walk, parent or zone.name.parent)]
    answers = await asyncio.gather(*(_view(walk, server, zone) for server in servers))
    views = [answer for answer in answers if isinstance(answer, _View)]
    if not views:
        return [_silent_parent(parent, servers, zone)]
    findings = list(_unheard(parent, dict(zip(servers, answers, strict=True))))
    findings += _judge_delegation(parent, views, zone)
    findings += _judge_glue(parent, [view for view in views if view.refers], zone)
    findings.append(_judge_ds(parent, views, zone))
    return findings


async def _view(walk: Walk, server: Server, zone: ZoneSettings) -> _View | Outcome:
    """What the server says; what came instead, if it does not answer for the parent zone."""
    asked = (walk.asker.ask(server, zone.name, rrtype) for rrtype in ("NS", "DS"))
    ns, ds = await asyncio.gather(*asked)
    if not isinstance(ns, Reply) or ns.rcode not in ("NOERROR", "NXDOMAIN"):
        return ns
    rdatas = ns.authority(zone.name, NS) or ns.answer(zone.name, NS)
    nameservers = frozenset(from_dnspython(rdata.target) for rdata in rdatas)
    return _View(
        server=server,
        nameservers=nameservers,
        refers=not ns.answer(zone.name, NS),
        glue={name: ns.addresses(name) for name in nameservers},
        ds=tuple(rdata.to_text() for rdata in ds.answer(zone.name, DS)) if isinstance(ds, Reply) else (),
    )


def _no_parent(walk: Walk, parent: Name) -> Finding:
    return cross(
        Check.DELEGATION,
        f"the resolver finds no nameservers for {parent}, where the zone has to be delegated",
        "see what is wrong there:",
        dig(walk.resolver, parent, "NS"),
    )


def _silent_parent(parent: Name, servers: Sequence[Server], zone: ZoneSettings) -> Finding:
    return cross(
        Check.DELEGATION,
        f"no server of {parent} answers, so nobody finds {zone.name}",
        "see whether this machine is kept from asking them:",
        *(dig(server, zone.name, "NS", "+norecurse") for server in servers),
    )


def _unheard(parent: Name, answers: Mapping[Server, _View | Outcome]) -> Iterator[Finding]:
    """Servers that do not answer for the parent; that there is no route from here to some says nothing about them."""
    for server, answer in answers.items():
        if isinstance(answer, _View) or answer is Failure.UNROUTED:
            continue
        what = f"answers {answer.reason}" if isinstance(answer, Reply) else answer.value
        yield note(
            Check.DELEGATION,
            f"{server}, a server of {parent}, {what}",
            Fix("see whether it is just this machine:", (dig(server, parent, "SOA", "+norecurse"),)),
        )


def _judge_delegation(parent: Name, views: Sequence[_View], zone: ZoneSettings) -> Iterator[Finding]:
    expected = frozenset(zone.nameservers)
    wrong = [view for view in views if view.nameservers != expected]
    if not wrong:
        yield tick(Check.DELEGATION, f"{_join(expected)} according to every server of {parent}")
    for nameservers, these in _grouped(wrong, lambda view: view.nameservers):
        theirs = witnesses([view.server for view in these], views, parent)
        # Where others are right, the record is there: it is the server that is behind.
        some_are_right = len(wrong) < len(views)
        fix = catch_up(parent, these[0].server, zone.name, "NS") if some_are_right else _fix(parent, nameservers, zone)
        yield cross(Check.DELEGATION, f"{_difference(nameservers, zone)} according to {theirs}", *fix)


def _difference(nameservers: frozenset[Name], zone: ZoneSettings) -> str:
    if not nameservers:
        return f"no NS records for {zone.name}"
    faults = []
    if missing := zone.nameservers.keys() - nameservers:
        faults.append(f"NS {_join(missing)} missing")
    if extra := nameservers - zone.nameservers.keys():
        faults.append(f"NS {_join(extra)} too many")
    return " and ".join(faults)


def _fix(parent: Name, nameservers: frozenset[Name], zone: ZoneSettings) -> tuple[str, ...]:
    """What to do, and the records."""
    if nameservers <= zone.nameservers.keys():
        missing = sorted(zone.nameservers.keys() - nameservers)
        return f"add to {parent}:", *(line for name in missing for line in (_ns(zone, name), *_glue(zone, name)))
    complete = (line for name in zone.nameservers for line in (_ns(zone, name), *_glue(zone, name)))
    return f"in {parent}, let the delegation be this and nothing else:", *complete


def _judge_glue(parent: Name, views: Sequence[_View], zone: ZoneSettings) -> Iterator[Finding]:
    """Compare the addresses of nameservers inside the zone, which nobody finds but by the glue."""
    inside = [name for name in zone.nameservers if name.is_within(zone.name)]
    delegating = {name: [view for view in views if name in view.nameservers] for name in inside}
    faults = [fault for name in inside for fault in _judge_glue_of(name, parent, delegating[name], zone)]
    if inside and all(delegating.values()) and not faults:
        yield tick(Check.GLUE, f"the addresses of {_join(inside)} are right, according to every server of {parent}")
    yield from faults


def _judge_glue_of(name: Name, parent: Name, views: Sequence[_View], zone: ZoneSettings) -> Iterator[Finding]:
    expected = frozenset(zone.nameservers[name])
    wrong = [view for view in views if view.glue[name] != expected]
    for glue, these in _grouped(wrong, lambda view: view.glue[name]):
        theirs = witnesses([view.server for view in these], views, parent)
        fix = (
            catch_up(parent, these[0].server, zone.name, "NS")
            if len(wrong) < len(views)
            else (f"in {parent}, let these be the addresses of {name}, and no others:", *_glue(zone, name))
        )
        found = _addresses(glue) or "no address"
        yield cross(Check.GLUE, f"{name} has {found} instead of {_addresses(expected)} according to {theirs}", *fix)


def _judge_ds(parent: Name, views: Sequence[_View], zone: ZoneSettings) -> Finding:
    """Nothing here signs zones, so there is nothing that a DS could be right about."""
    claimed = sorted({text for view in views for text in view.ds})
    if not claimed:
        return tick(Check.DS, f"{zone.name} is not signed, and {parent} does not claim that it is")
    return cross(
        Check.DS,
        f"{parent} claims by a DS that {zone.name} is signed, which it is not: CAs take every answer for forged",
        f"remove from {parent}:",
        *(f"{zone.name.fqdn} {zone.static_ttl} IN DS {text}" for text in claimed),
    )


def _ns(zone: ZoneSettings, name: Name) -> str:
    return f"{zone.name.fqdn} {zone.static_ttl} IN NS {name.fqdn}"


def _glue(zone: ZoneSettings, name: Name) -> list[str]:
    return [
        f"{name.fqdn} {zone.static_ttl} IN {'A' if address.version == 4 else 'AAAA'} {address}"
        for address in zone.nameservers.get(name, ())
    ]


def _grouped(views: Iterable[_View], key: Callable[[_View], K]) -> Iterable[tuple[K, list[_View]]]:
    """Views that say the same together, so that one fault is one line."""
    groups: defaultdict[K, list[_View]] = defaultdict(list)
    for view in views:
        groups[key(view)].append(view)
    return groups.items()


def _join(names: Iterable[Name]) -> str:
    return ", ".join(map(str, sorted(names)))


def _addresses(addresses: Iterable[Address]) -> str:
    return ", ".join(map(str, sorted(addresses, key=lambda address: (address.version, int(address)))))
