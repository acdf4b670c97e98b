"""
Finds the CAA records for a hostname as a CA does, from the hostname towards the root (RFC 8659, section 3).

`caa` decides what they mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

from dns.rdtypes.ANY.CAA import CAA

from responder.doctor.caa import METHOD, Judgment, Policy, Property, is_prohibitive, judge, permission_text, relevant
from responder.doctor.questions import QueryResult, Reply
from responder.doctor.report import CheckName, Finding, Fix, cross, dig, note, tick
from responder.doctor.walk import Walk
from responder.names import Name
from responder.tokens.hostname import zone_of
from responder.tokens.token import Grant


@dataclass(frozen=True, slots=True)
class _Found:
    """
    The CAA records that apply: those of *owner*, or none. *records* has each as a line of zone text.

    *place* is the name nearest to the hostname at which a CAA record applies: not the hostname itself, if it
    *is_alias*. Records in our zones, those of *apexes*, are set in the configuration.
    """

    owner: Name
    place: Name
    is_alias: bool
    apexes: Collection[Name]
    properties: tuple[Property, ...] = ()
    records: tuple[str, ...] = ()

    def is_ours(self, name: Name) -> bool:
        return zone_of(name, self.apexes) is not None

    def holder(self, name: Name) -> str:
        """Where to add records of *name*."""
        return _CONFIGURED if self.is_ours(name) else f"the records of {name}"


_CONFIGURED = "the records of the zone in the configuration, and restart the service"


async def examine(
    walk: Walk, grant: Grant, policy: Policy, apexes: Collection[Name], *, wildcard: bool
) -> list[Finding]:
    """
    Check whether CAA allows the CA to issue for the hostname of *grant*, and for its *wildcard* if that is set.
    *apexes* are the names of our zones.
    """
    hostname = grant.hostname
    climbed = _climb(hostname)
    outcomes = await asyncio.gather(*(walk.resolve(name, "CAA") for name in climbed))
    is_alias = isinstance(outcomes[0], Reply) and outcomes[0].alias_end(hostname) != hostname
    found = _Found(hostname, hostname.parent if is_alias else hostname, is_alias, apexes)
    for name, outcome in zip(climbed, outcomes, strict=True):
        if not isinstance(outcome, Reply) or outcome.rcode not in ("NOERROR", "NXDOMAIN"):
            return [_unanswered(walk, name, outcome)]
        owner = outcome.alias_end(name)
        if records := outcome.answer_records(owner, CAA):
            lines = tuple(f"{owner.fqdn} IN CAA {record}" for record in records)
            place = found.place if owner == name else owner  # the target of an alias comes before its parents
            properties = tuple(map(_property, records))
            found = replace(found, owner=owner, place=place, properties=properties, records=lines)
            break
    return _judge(found, hostname, policy, wildcard=wildcard)


def _climb(hostname: Name) -> list[Name]:
    names = [hostname]
    while len(names[-1].labels) > 1:
        names.append(names[-1].parent)
    return names


def _property(record: CAA) -> Property:
    return Property(
        record.flags, record.tag.decode("ascii", "replace").lower(), record.value.decode("ascii", "replace")
    )


def _unanswered(walk: Walk, name: Name, outcome: QueryResult) -> Finding:
    reason = outcome.reason if isinstance(outcome, Reply) else f"the resolver {outcome.value}"
    return cross(
        CheckName.CAA,
        f"the CAA query for {name} fails, and then CAs do not issue: {reason}",
        "find out what is wrong with this query:",
        dig(walk.resolver, name, "CAA"),
    )


def _judge(found: _Found, hostname: Name, policy: Policy, *, wildcard: bool) -> list[Finding]:
    subjects = {False: f"{hostname}"} | ({True: f"*.{hostname}"} if wildcard else {})
    if wildcard and not any(record.tag == "issuewild" for record in found.properties):
        subjects = {False: f"{hostname} and *.{hostname}"}
    findings = [
        _judge_issuance(found, hostname, subject, policy, wildcard=of_it) for of_it, subject in subjects.items()
    ]
    judgement = judge(found.properties, policy, wildcard=False)
    if judgement.fault is None:
        findings.append(_judge_binding(found, policy, judgement))
    return findings


def _judge_issuance(found: _Found, hostname: Name, subject: str, policy: Policy, *, wildcard: bool) -> Finding:
    identity, owner = policy.identities[0], found.owner
    fault = judge(found.properties, policy, wildcard=wildcard).fault
    values = relevant(found.properties, wildcard=wildcard)
    if fault is None:
        return tick(
            CheckName.CAA,
            f"the CAA of {owner} allows {identity} to issue for {subject}"
            if values
            else f"no CAA record limits which CAs issue for {subject}",
        )
    text = f"the CAA of {owner} does not allow {identity} to issue for {subject}: {fault}"
    unknown = [line for line, one in zip(found.records, found.properties, strict=True) if is_prohibitive(one)]
    if unknown:
        return cross(CheckName.CAA, text, f"remove from {found.holder(owner)}:", *unknown)
    return cross(CheckName.CAA, text, *_permit(found, hostname, policy, "issuewild" if wildcard else "issue"))


def _permit(found: _Found, hostname: Name, policy: Policy, tag: str) -> tuple[str, str]:
    """The instruction, and the record to add."""
    identity, owner, place, bound = policy.identities[0], found.owner, found.place, permission_text(policy)
    if not found.is_ours(owner):
        return f"add to {found.holder(owner)}:", _record(owner, tag, bound if policy.account_uri else identity)
    # In our zones, allow one name only: else every token would suffice for certificates of other names in the zone.
    value = bound if policy.account_uri else f"{identity}; validationmethods={METHOD}"
    if place not in found.apexes:
        return f"add to {_CONFIGURED}:", _record(place, tag, value)
    if found.is_alias and hostname.parent == place:
        instruction = f"a name with a CNAME cannot have a CAA, so give {hostname} addresses instead, and"
        return f"{instruction} add to {_CONFIGURED}:", _record(hostname, tag, value)
    instruction = "this record applies to all names in the zone, so it has to name your account:"
    return f"{instruction} add to {_CONFIGURED}:", _record(place, tag, bound)


def _judge_binding(found: _Found, policy: Policy, judgement: Judgment) -> Finding:
    identity, bound, place = policy.identities[0], judgement.account_uris, found.place
    if bound is not None and judgement.binds_method:
        return tick(CheckName.BINDING, f"{identity} issues by dns-01 only, and only to {', '.join(sorted(bound))}")
    missing = [*["accounturi"] * (bound is None), *["validationmethods"] * (not judgement.binds_method)]
    beside = found.owner == place and relevant(found.properties, wildcard=False)
    how = f"replace those that name {identity} in" if beside else "add to"
    return note(
        CheckName.BINDING,
        f"CAA has no {' and no '.join(missing)} (RFC 8657), so {identity} may issue to others or by other methods",
        Fix(f"{how} {found.holder(place)}:", (_record(place, "issue", permission_text(policy)),)),
    )


def _record(owner: Name, tag: str, value: str) -> str:
    return f'{owner.fqdn} 300 IN CAA 0 {tag} "{value}"'
