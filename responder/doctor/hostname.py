"""
Checks that the name that a CA queries, `_acme-challenge` of a hostname, leads to the challenge name of the hostname.

It queries each server of the zone of the hostname, then the resolver, which sees what a CA would see.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.TXT import TXT

from responder.doctor.nameservers import FOLLOW_PATIENCE
from responder.doctor.questions import QueryResult, Reply, Server, from_dnspython, wait_for_none
from responder.doctor.report import CheckName, Finding, catch_up, cross, dig, note, tick, witnesses
from responder.doctor.walk import Walk
from responder.names import Name
from responder.tokens.token import Grant


@dataclass(frozen=True, slots=True)
class _View:
    """
    The records that one server has at the name: the target of its CNAME, TXT records that should not be there, and the
    nameservers that the name is *delegated_to* as a zone of its own.
    """

    server: Server
    target: Name | None
    has_text: bool
    delegated_to: frozenset[Name]


async def examine(
    walk: Walk, grant: Grant, nameservers: Sequence[Server], ours: Collection[Name] = ()
) -> list[Finding]:
    """
    Query our *nameservers*, whose names are *ours*, and the servers of the zone of the hostname about the names of
    *grant*.
    """
    findings = [await _judge_known(walk, grant, nameservers)] if nameservers else []
    if grant.cname is None:
        return [*findings, tick(CheckName.CNAME, f"none needed: {grant.challenge_name} is in our zone")]
    return [*findings, *await _examine_alias(walk, grant, ours)]


async def examine_path(walk: Walk, grant: Grant) -> list[Finding]:
    """Query the resolver, which works like that of a CA."""
    return [judge_path(walk, grant, await walk.resolve(asked_name(grant), "TXT"))]


def judge_path(walk: Walk, grant: Grant, outcome: QueryResult) -> Finding:
    """Judge *outcome*, the reply of the resolver to the query for the values."""
    name = asked_name(grant)
    if not isinstance(outcome, Reply):
        fault = f"it {outcome.value} when it is queried for {name}"
    elif outcome.rcode not in ("NOERROR", "NXDOMAIN"):
        fault = f"it cannot resolve {name}: {outcome.reason}"
    elif (end := outcome.alias_end(name)) != grant.challenge_name:
        fault = f"for {name} it finds {end if end != name else 'no CNAME'} instead of {grant.challenge_name}"
    elif outcome.rcode == "NXDOMAIN":
        fault = f"it reports that {grant.challenge_name} does not exist"
    else:
        return tick(CheckName.RESOLVER, f"it finds {grant.challenge_name}")
    return unresolved(walk, grant, fault)


def unresolved(walk: Walk, grant: Grant, fault: str) -> Finding:
    """The finding about a resolver that does not find what a CA has to find."""
    return cross(
        CheckName.RESOLVER,
        fault,
        "fix the other problems first, then wait until its cache expires; this shows its cache, without DNSSEC checks:",
        dig(walk.resolver, asked_name(grant), "TXT", "+cdflag"),
    )


def asked_name(grant: Grant) -> Name:
    """The name that a CA queries; for an account without a hostname, the target of its CNAMEs."""
    return grant.delegated_name if grant.cname is not None else grant.challenge_name


async def _judge_known(walk: Walk, grant: Grant, nameservers: Sequence[Server]) -> Finding:
    """A challenge name exists while it is granted. A nameserver gets some time to follow."""
    denying = await wait_for_none(lambda: _denying(walk, grant, nameservers), FOLLOW_PATIENCE)
    if not denying:
        return tick(CheckName.KNOWN, f"{grant.challenge_name} exists on every nameserver that replies")
    return cross(
        CheckName.KNOWN,
        f"{', '.join(map(str, denying))} does not know {grant.challenge_name}, which a token covers",
        "make sure that the service there uses the same database as this command:",
        "responder config check | grep database.url",
    )


async def _denying(walk: Walk, grant: Grant, nameservers: Sequence[Server]) -> list[Server]:
    asked = (walk.asker.ask(server, grant.challenge_name, "TXT") for server in nameservers)
    outcomes = await asyncio.gather(*asked)
    return [
        server
        for server, outcome in zip(nameservers, outcomes, strict=True)
        if isinstance(outcome, Reply) and outcome.rcode == "NXDOMAIN"
    ]


async def _examine_alias(walk: Walk, grant: Grant, ours: Collection[Name]) -> list[Finding]:
    zone = await walk.zone_of(grant.hostname)
    servers = await walk.servers_of(zone) if zone is not None else ()
    if zone is None or not servers:
        return [
            cross(
                CheckName.CNAME,
                f"the resolver finds no nameservers for {zone or grant.hostname}, where the CNAME has to be",
                "find out what is wrong with this query:",
                dig(walk.resolver, zone or grant.hostname, "NS"),
            )
        ]
    answers = await asyncio.gather(*(_view(walk, server, grant.delegated_name) for server in servers))
    views = [view for view in answers if view is not None]
    if not views:
        return [
            note(CheckName.CNAME, f"this machine reaches no server of {zone}: only the reply of the resolver is known")
        ]
    findings: list[Finding] = []
    for target in dict.fromkeys(view.target for view in views):
        findings += await _judge_target(walk, grant, zone, target, views, ours)
    findings += _judge_texts(grant, zone, views)
    return findings or [tick(CheckName.CNAME, f"{grant.delegated_name} leads to {grant.challenge_name}")]


async def _view(walk: Walk, server: Server, name: Name) -> _View | None:
    """The view of one server; None if it does not reply."""
    cname, txt = await asyncio.gather(*(walk.asker.ask(server, name, rrtype) for rrtype in ("CNAME", "TXT")))
    if not isinstance(cname, Reply) or cname.rcode not in ("NOERROR", "NXDOMAIN"):
        return None
    targets = cname.answer_records(name, CNAME)
    return _View(
        server=server,
        target=from_dnspython(targets[0].target) if targets else None,
        has_text=isinstance(txt, Reply) and bool(txt.answer_records(name, TXT)),
        delegated_to=frozenset()
        if cname.is_authoritative
        else frozenset(from_dnspython(rdata.target) for rdata in cname.authority_records(name, NS)),
    )


async def _judge_target(
    walk: Walk, grant: Grant, zone: Name, target: Name | None, views: Sequence[_View], ours: Collection[Name]
) -> list[Finding]:
    """The findings about the servers whose CNAME leads to *target*; none if it is right."""
    if target is not None and await _leads_home(walk, grant, target):
        return []
    name, these = grant.delegated_name, [view for view in views if view.target == target]
    check, fault, fix = await _diagnose(walk, grant, zone, these[0], ours)
    if any(view.target == grant.challenge_name for view in views):
        fix = catch_up(zone, these[0].server, name, "CNAME")  # the record exists, so this server is behind
    theirs = witnesses([view.server for view in these], views, zone)
    return [cross(check, f"{name} {fault} according to {theirs}", *fix)]


async def _diagnose(
    walk: Walk, grant: Grant, zone: Name, view: _View, ours: Collection[Name]
) -> tuple[CheckName, str, tuple[str, ...]]:
    """The check that fails, what is wrong with the name, what to do, and the records or commands for it."""
    name, cname = grant.delegated_name, f"{grant.cname}"
    if view.target is None and view.delegated_to & {*ours}:
        fault = f"is delegated to this service, but the token has {grant.challenge_name} as its challenge name"
        instruction = (
            f"serve the zone {name} (see [[zones]] in the configuration), and then give its name to the token:"
        )
        commands = (f"responder token {verb} ID {grant.hostname}" for verb in ("deny", "allow"))
        return CheckName.CNAME, fault, (instruction, *commands)
    if view.target is None and view.delegated_to:
        fault = "is delegated by NS records and so has no CNAME"
        return CheckName.CNAME, fault, (f"remove those NS records from {zone}, and add:", cname)
    if view.target is None:
        return CheckName.CNAME, "has no CNAME", (f"add to {zone}:", cname)
    wildcard = await _wildcard(walk, view.server, zone, name, view.target)
    if wildcard is not None:
        fault = f"has no CNAME of its own, so {wildcard} answers for it with {view.target}"
        instruction = f"add to {zone}; a record at the name itself takes precedence over a wildcard:"
        return CheckName.WILDCARD, fault, (instruction, cname)
    fault = f"leads to {view.target} instead of {grant.challenge_name}"
    return CheckName.CNAME, fault, (f"in {zone}, replace that CNAME by:", cname)


async def _leads_home(walk: Walk, grant: Grant, target: Name) -> bool:
    """Whether *target* is the challenge name, or an alias that leads to it."""
    if target == grant.challenge_name:
        return True
    outcome = await walk.resolve(target, "TXT")
    return isinstance(outcome, Reply) and outcome.alias_end(target) == grant.challenge_name


async def _wildcard(walk: Walk, server: Server, zone: Name, name: Name, target: Name) -> Name | None:
    """The wildcard that answers for *name*, if there is one: it also answers for a random name."""
    unheard_of = Name.from_labels([secrets.token_hex(len(name.labels[0]) // 2).encode(), *name.parent.labels])
    outcome = await walk.asker.ask(server, unheard_of, "CNAME")
    if not isinstance(outcome, Reply) or not _is_alias(outcome, unheard_of, target):
        return None
    above = name.parent
    while above.is_within(zone):
        wildcard = Name.from_labels([b"*", *above.labels])
        outcome = await walk.asker.ask(server, wildcard, "CNAME")
        if isinstance(outcome, Reply) and _is_alias(outcome, wildcard, target):
            return wildcard
        above = above.parent
    return Name.from_labels([b"*", *name.parent.labels])


def _is_alias(reply: Reply, name: Name, target: Name) -> bool:
    return any(from_dnspython(rdata.target) == target for rdata in reply.answer_records(name, CNAME))


def _judge_texts(grant: Grant, zone: Name, views: Sequence[_View]) -> Iterator[Finding]:
    these = [view for view in views if view.has_text]
    if these:
        theirs = witnesses([view.server for view in these], views, zone)
        yield cross(
            CheckName.TXT,
            f"{grant.delegated_name} has a TXT record, which conflicts with the CNAME, according to {theirs}",
            f"remove all TXT records of that name from {zone}, and keep only:",
            f"{grant.cname}",
        )
