"""
Which CAA records a CA finds for a hostname, climbing from it towards the root (RFC 8659, section 3), and what to say.

What they mean is decided in `caa`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

from dns.rdtypes.ANY.CAA import CAA

from responder.doctor.caa import METHOD, Judgement, Policy, Property, is_prohibitive, judge, permission_text, relevant
from responder.doctor.questions import Outcome, Reply
from responder.doctor.report import Check, Finding, Fix, cross, dig, note, tick
from responder.doctor.walk import Walk
from responder.names import Name
from responder.tokens.hostname import zone_of
from responder.tokens.token import Grant


@dataclass(frozen=True, slots=True)
class _Found:
    """
    The records that count: those of *owner*, or none anywhere. *records* is zone text, a line for each.

    *place* is the name nearest to the hostname at which a record counts: not the hostname itself, if it *is_alias*.
    What is in our zones, those of *apexes*, is set in the configuration.
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
        """Where records of *name* are to be put."""
        return _CONFIGURED if self.is_ours(name) else f"the records of {name}"


_CONFIGURED = "the records of the zone in the configuration, and restart the service"


async def examine(
    walk: Walk, grant: Grant, policy: Policy, apexes: Collection[Name], *, wildcard: bool
) -> list[Finding]:
    """
    Look up what CAA says about the hostname of *grant*, and about its *wildcard* if that is wanted. *apexes* are the
    tops of our zones.
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
        if records := outcome.answer(owner, CAA):
            lines = tuple(f"{owner.fqdn} IN CAA {record}" for record in records)
            place = found.place if owner == name else owner  # what an alias leads to is found before what is above
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


def _unanswered(walk: Walk, name: Name, outcome: Outcome) -> Finding:
    reason = outcome.reason if isinstance(outcome, Reply) else f"the resolver {outcome.value}"
    return cross(
        Check.CAA,
        f"the CAA look-up for {name} fails, and a CA that gets no answer issues nothing: {reason}",
        "see what is wrong there:",
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
            Check.CAA,
            f"the CAA of {owner} allows {identity} to issue for {subject}"
            if values
            else f"no CAA record limits who issues for {subject}",
        )
    text = f"the CAA of {owner} keeps {identity} from issuing for {subject}: {fault}"
    unknown = [line for line, one in zip(found.records, found.properties, strict=True) if is_prohibitive(one)]
    if unknown:
        return cross(Check.CAA, text, f"remove from {found.holder(owner)}:", *unknown)
    return cross(Check.CAA, text, *_permit(found, hostname, policy, "issuewild" if wildcard else "issue"))


def _permit(found: _Found, hostname: Name, policy: Policy, tag: str) -> tuple[str, str]:
    """What to do, and the record."""
    identity, owner, place, bound = policy.identities[0], found.owner, found.place, permission_text(policy)
    if not found.is_ours(owner):
        return f"add to {found.holder(owner)}:", _record(owner, tag, bound if policy.account_uri else identity)
    # In a zone of ours one name is let out, not all of them: each token would do for a certificate of some other name.
    value = bound if policy.account_uri else f"{identity}; validationmethods={METHOD}"
    if place not in found.apexes:
        return f"add to {_CONFIGURED}:", _record(place, tag, value)
    if found.is_alias and hostname.parent == place:
        instruction = f"no CAA can be beside its CNAME, so give {hostname} addresses instead, and with them"
        return f"{instruction} add to {_CONFIGURED}:", _record(hostname, tag, value)
    instruction = "as it speaks for every name in the zone, it has to be bound to your account:"
    return f"{instruction} add to {_CONFIGURED}:", _record(place, tag, bound)


def _judge_binding(found: _Found, policy: Policy, judgement: Judgement) -> Finding:
    identity, bound, place = policy.identities[0], judgement.account_uris, found.place
    if bound is not None and judgement.binds_method:
        return tick(Check.BINDING, f"{identity} issues by dns-01 only, and only to {', '.join(sorted(bound))}")
    missing = [*["accounturi"] * (bound is None), *["validationmethods"] * (not judgement.binds_method)]
    beside = found.owner == place and relevant(found.properties, wildcard=False)
    how = f"in place of those that name {identity}, put into" if beside else "add to"
    return note(
        Check.BINDING,
        f"CAA has no {' and no '.join(missing)} (RFC 8657), to keep {identity} from issuing to anybody but you",
        Fix(f"{how} {found.holder(place)}:", (_record(place, "issue", permission_text(policy)),)),
    )


def _record(owner: Name, tag: str, value: str) -> str:
    return f'{owner.fqdn} 300 IN CAA 0 {tag} "{value}"'
