"""
Which CAA records a CA finds for a hostname, climbing from it towards the root (RFC 8659, section 3), and what to say.

What they mean is decided in `caa`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dns.rdtypes.ANY.CAA import CAA

from responder.doctor.caa import Judgement, Policy, Property, is_prohibitive, judge, permission_text, relevant
from responder.doctor.questions import Outcome, Reply
from responder.doctor.report import Check, Finding, Mend, cross, note, tick
from responder.doctor.walk import Walk
from responder.names import Name


@dataclass(frozen=True, slots=True)
class _Found:
    """The records that count: those of *owner*, or none anywhere. *records* is zone text, a line for each."""

    owner: Name
    properties: tuple[Property, ...] = ()
    records: tuple[str, ...] = ()


async def examine(walk: Walk, hostname: Name, policy: Policy, *, wildcard: bool) -> list[Finding]:
    """Look up what CAA says about *hostname*, and about its *wildcard* if that is wanted."""
    climbed = _climb(hostname)
    outcomes = await asyncio.gather(*(walk.resolve(name, "CAA") for name in climbed))
    for name, outcome in zip(climbed, outcomes, strict=True):
        if not isinstance(outcome, Reply) or outcome.rcode not in ("NOERROR", "NXDOMAIN"):
            return [_unanswered(walk, name, outcome)]
        owner = outcome.alias_end(name)
        if records := outcome.answer(owner, CAA):
            found = _Found(owner, tuple(map(_property, records)), tuple(f"{owner.fqdn} IN CAA {r}" for r in records))
            break
    else:
        found = _Found(hostname)
    first = outcomes[0]
    is_alias = isinstance(first, Reply) and first.alias_end(hostname) != hostname
    return _judge(found, hostname, hostname.parent if is_alias else hostname, policy, wildcard=wildcard)


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
        f"dig @{walk.resolver.address} {name} CAA",
    )


def _judge(found: _Found, hostname: Name, place: Name, policy: Policy, *, wildcard: bool) -> list[Finding]:
    """*place* is where a record for the hostname can be: above it, if it is an alias."""
    findings = [_judge_issuance(found, hostname, policy, wildcard=False)]
    if wildcard:
        findings.append(_judge_issuance(found, hostname, policy, wildcard=True))
    judgement = judge(found.properties, policy, wildcard=False)
    if judgement.fault is None:
        findings.append(_judge_binding(found, place, policy, judgement))
    return findings


def _judge_issuance(found: _Found, hostname: Name, policy: Policy, *, wildcard: bool) -> Finding:
    fault = judge(found.properties, policy, wildcard=wildcard).fault
    subject = f"*.{hostname}" if wildcard else str(hostname)
    if fault is None:
        if relevant(found.properties, wildcard=wildcard):
            return tick(Check.CAA, f"the CAA of {found.owner} allows {policy.identities[0]} to issue for {subject}")
        return tick(Check.CAA, f"no CAA keeps any CA from issuing for {subject}")
    unknown = [f for f, p in zip(found.records, found.properties, strict=True) if is_prohibitive(p)]
    text = f"the CAA of {found.owner} keeps {policy.identities[0]} from issuing for {subject}: {fault}"
    if unknown:
        return cross(Check.CAA, text, f"remove from {found.owner}:", *unknown)
    tag = "issuewild" if wildcard and any(p.tag == "issuewild" for p in found.properties) else "issue"
    value = permission_text(policy) if policy.account_uri else policy.identities[0]
    return cross(Check.CAA, text, f"add to the records of {found.owner}:", _record(found.owner, tag, value))


def _judge_binding(found: _Found, place: Name, policy: Policy, judgement: Judgement) -> Finding:
    identity, bound = policy.identities[0], judgement.account_uris
    if bound is not None and judgement.binds_method:
        return tick(Check.BINDING, f"{identity} issues by dns-01 only, and only to {', '.join(sorted(bound))}")
    missing = " and ".join([*["accounturi"] * (bound is None), *["validationmethods"] * (not judgement.binds_method)])
    beside = found.owner == place and relevant(found.properties, wildcard=False)
    where = f"in place of the records of {place} that name {identity}" if beside else f"at {place}"
    return note(
        Check.BINDING,
        f"no {missing} binds issuance by {identity} to your account: with it, a stolen token gets nobody a certificate",
        Mend(f"put this {where} (RFC 8657):", (_record(place, "issue", permission_text(policy)),)),
    )


def _record(owner: Name, tag: str, value: str) -> str:
    return f'{owner.fqdn} 300 IN CAA 0 {tag} "{value}"'
