"""
Checks that the parent zone refers resolvers to us, with the same NS records and glue at each server, and without a DS.

Each server is queried, as resolvers do: if one server is behind, some validations fail and others do not.
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
from responder.doctor.questions import (
    DNS_PORT,
    Address,
    Asker,
    Failure,
    QueryResult,
    Reply,
    Server,
    from_dnspython,
)
from responder.doctor.report import CheckName, Finding, Fix, catch_up, cross, dig, note, tick, witnesses
from responder.doctor.walk import Walk
from responder.errors import CannotExamine
from responder.names import Name

DEADLINE = 30.0
"""Seconds for `undelegated`."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _View:
    """
    What one server of the parent replies about our zone. No *nameservers* means no delegation. A server that *refers*
    includes the glue; a server that also holds our zone replies itself, without glue.
    """

    server: Server
    nameservers: frozenset[Name]
    refers: bool
    glue: Mapping[Name, frozenset[Address]]
    ds: tuple[str, ...]


async def examine(walk: Walk, zone: ZoneSettings) -> list[Finding]:
    """Query each server of the parent zone about *zone*, and compare the replies with the settings."""
    parent = await walk.zone_of(zone.name.parent)
    servers = await walk.servers_of(parent) if parent else ()
    if parent is None or not servers:
        return [_no_parent(walk, parent or zone.name.parent)]
    replies = await asyncio.gather(*(_view(walk, server, zone) for server in servers))
    views = [reply for reply in replies if isinstance(reply, _View)]
    if not views:
        return [_silent_parent(parent, servers, zone)]
    findings = list(_unheard(parent, dict(zip(servers, replies, strict=True))))
    findings += _judge_delegation(parent, views, zone)
    findings += _judge_glue(parent, [view for view in views if view.refers], zone)
    findings.append(_judge_ds(parent, views, zone))
    return findings


async def undelegated(resolvers: Sequence[str], zone: ZoneSettings, *, port: int = DNS_PORT) -> str:
    """
    Why no resolver can find *zone* now, according to the servers of its parent; "" if that is not certain.

    The servers are queried themselves, because a resolver would keep the answer that there is no delegation, often for
    an hour. Uses the first of *resolvers* that replies. All servers use *port*.
    """
    asker = Asker(lambda _: None)
    try:
        async with asyncio.timeout(DEADLINE):
            walk = await Walk.start(asker, [Server("", address, port) for address in resolvers], port)
            parent = await walk.zone_of(zone.name.parent)
            servers = await walk.servers_of(parent) if parent else ()
            replies = await asyncio.gather(*(_view(walk, server, zone) for server in servers))
    except (CannotExamine, TimeoutError):
        return ""
    views = [reply for reply in replies if isinstance(reply, _View)]
    if not views or any(view.nameservers & frozenset(zone.nameservers) for view in views):
        return ""
    return f"no server of {parent} delegates {zone.name} to {_join(zone.nameservers)}"


async def _view(walk: Walk, server: Server, zone: ZoneSettings) -> _View | QueryResult:
    """The view of one server, or the failed query if it does not answer for the parent zone."""
    asked = (walk.asker.ask(server, zone.name, rrtype) for rrtype in ("NS", "DS"))
    ns, ds = await asyncio.gather(*asked)
    if not isinstance(ns, Reply) or ns.rcode not in ("NOERROR", "NXDOMAIN"):
        return ns
    rdatas = ns.authority_records(zone.name, NS) or ns.answer_records(zone.name, NS)
    nameservers = frozenset(from_dnspython(rdata.target) for rdata in rdatas)
    return _View(
        server=server,
        nameservers=nameservers,
        refers=not ns.answer_records(zone.name, NS),
        glue={name: ns.addresses(name) for name in nameservers},
        ds=tuple(rdata.to_text() for rdata in ds.answer_records(zone.name, DS)) if isinstance(ds, Reply) else (),
    )


def _no_parent(walk: Walk, parent: Name) -> Finding:
    return cross(
        CheckName.DELEGATION,
        f"the resolver finds no nameservers for {parent}, where the zone has to be delegated",
        "find out what is wrong with this query:",
        dig(walk.resolver, parent, "NS"),
    )


def _silent_parent(parent: Name, servers: Sequence[Server], zone: ZoneSettings) -> Finding:
    return cross(
        CheckName.DELEGATION,
        f"no server of {parent} replies, so resolvers cannot find {zone.name}",
        "check whether this machine can reach them:",
        *(dig(server, zone.name, "NS", "+norecurse") for server in servers),
    )


def _unheard(parent: Name, replies: Mapping[Server, _View | QueryResult]) -> Iterator[Finding]:
    """Servers that do not answer for the parent. A server without a route from here may still be fine."""
    for server, reply in replies.items():
        if isinstance(reply, _View) or reply is Failure.UNROUTED:
            continue
        what = f"replies with {reply.reason}" if isinstance(reply, Reply) else reply.value
        yield note(
            CheckName.DELEGATION,
            f"{server}, a server of {parent}, {what}",
            Fix("check whether it fails from this machine only:", (dig(server, parent, "SOA", "+norecurse"),)),
        )


def _judge_delegation(parent: Name, views: Sequence[_View], zone: ZoneSettings) -> Iterator[Finding]:
    expected = frozenset(zone.nameservers)
    wrong = [view for view in views if view.nameservers != expected]
    if not wrong:
        yield tick(CheckName.DELEGATION, f"{_join(expected)} according to every server of {parent}")
    for nameservers, these in _grouped(wrong, lambda view: view.nameservers):
        theirs = witnesses([view.server for view in these], views, parent)
        # If other servers are right, the record exists, and this server is behind.
        some_are_right = len(wrong) < len(views)
        fix = catch_up(parent, these[0].server, zone.name, "NS") if some_are_right else _fix(parent, nameservers, zone)
        yield cross(CheckName.DELEGATION, f"{_difference(nameservers, zone)} according to {theirs}", *fix)


def _difference(nameservers: frozenset[Name], zone: ZoneSettings) -> str:
    if not nameservers:
        return f"no NS records for {zone.name}"
    faults = []
    if missing := zone.nameservers.keys() - nameservers:
        faults.append(f"NS {_join(missing)} missing")
    if extra := nameservers - zone.nameservers.keys():
        faults.append(f"NS {_join(extra)} not in [zones.nameservers]")
    return " and ".join(faults)


def _fix(parent: Name, nameservers: frozenset[Name], zone: ZoneSettings) -> tuple[str, ...]:
    """The instruction, and the records."""
    if nameservers <= zone.nameservers.keys():
        missing = sorted(zone.nameservers.keys() - nameservers)
        return f"add to {parent}:", *(line for name in missing for line in (_ns(zone, name), *_glue(zone, name)))
    complete = (line for name in zone.nameservers for line in (_ns(zone, name), *_glue(zone, name)))
    return f"in {parent}, replace the delegation by exactly these records:", *complete


def _judge_glue(parent: Name, views: Sequence[_View], zone: ZoneSettings) -> Iterator[Finding]:
    """Compare the addresses of nameservers inside the zone, which resolvers find by glue only."""
    inside = [name for name in zone.nameservers if name.is_within(zone.name)]
    delegating = {name: [view for view in views if name in view.nameservers] for name in inside}
    faults = [fault for name in inside for fault in _judge_glue_of(name, parent, delegating[name], zone)]
    if inside and all(delegating.values()) and not faults:
        yield tick(CheckName.GLUE, f"every server of {parent} has the right addresses of {_join(inside)}")
    yield from faults


def _judge_glue_of(name: Name, parent: Name, views: Sequence[_View], zone: ZoneSettings) -> Iterator[Finding]:
    expected = frozenset(zone.nameservers[name])
    wrong = [view for view in views if view.glue[name] != expected]
    for glue, these in _grouped(wrong, lambda view: view.glue[name]):
        theirs = witnesses([view.server for view in these], views, parent)
        fix = (
            catch_up(parent, these[0].server, zone.name, "NS")
            if len(wrong) < len(views)
            else (f"in {parent}, replace the addresses of {name} by exactly these:", *_glue(zone, name))
        )
        found = _addresses(glue) or "no address"
        yield cross(CheckName.GLUE, f"{name} has {found} instead of {_addresses(expected)} according to {theirs}", *fix)


def _judge_ds(parent: Name, views: Sequence[_View], zone: ZoneSettings) -> Finding:
    """This service does not sign zones, so every DS is wrong."""
    claimed = sorted({text for view in views for text in view.ds})
    if not claimed:
        return tick(CheckName.DS, f"{zone.name} is not signed, and {parent} has no DS for it")
    return cross(
        CheckName.DS,
        f"{parent} has a DS for {zone.name}, which is not signed: CAs reject all replies as forged",
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
    """Group equal views, so that one fault is one line."""
    groups: defaultdict[K, list[_View]] = defaultdict(list)
    for view in views:
        groups[key(view)].append(view)
    return groups.items()


def _join(names: Iterable[Name]) -> str:
    return ", ".join(map(str, sorted(names)))


def _addresses(addresses: Iterable[Address]) -> str:
    return ", ".join(map(str, sorted(addresses, key=lambda address: (address.version, int(address)))))
