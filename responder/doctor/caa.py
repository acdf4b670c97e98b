"""
Whether a CA may issue for a hostname (CAA, RFC 8659), and only for one account, by dns-01 (RFC 8657). Pure.

Reads values as strictly as CAs do: what is malformed allows nobody.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

METHOD = "dns-01"

KNOWN_TAGS = frozenset({"issue", "issuewild", "issuemail", "issuevmc", "iodef", "contactemail", "contactphone"})
"""Property tags in the registry of CAA. One that a CA does not know and that is critical forbids everything."""

CRITICAL = 0x80
"""The flag of RFC 8659, section 4.1."""

_TAG = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
_VALUE = re.compile(r"[!-:<-~]*")  # RFC 8659, section 4.2: printable, without semicolon


@dataclass(frozen=True, slots=True)
class Property:
    """One CAA record. *tag* is in lower case."""

    flags: int
    tag: str
    value: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Which CA is to issue, by the names that it recognises as its own, and for which account, if that is known."""

    identities: tuple[str, ...]
    account_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    What a set of CAA records means for a policy. *fault* is None if they allow it.

    *account_uris* are those that issuance is limited to, None if any account may; *binds_method* is whether it is
    limited to certain methods, of which dns-01 is one.
    """

    fault: str | None = None
    account_uris: frozenset[str] | None = None
    binds_method: bool = False


@dataclass(frozen=True, slots=True)
class _Permission:
    """The value of an `issue` or `issuewild` property."""

    issuer: str
    account_uri: str | None
    methods: frozenset[str] | None


def judge(properties: Sequence[Property], policy: Policy, *, wildcard: bool) -> Judgement:
    """Read the relevant record set of a hostname, or of its *wildcard*. No records allow everything."""
    for record in filter(is_prohibitive, properties):
        return Judgement(f"the critical property {record.tag!r} is one that CAs do not know")
    values = relevant(properties, wildcard=wildcard)
    if not values:
        return Judgement()
    permissions = [permission for value in values if (permission := _parse(value)) is not None]
    ours = [permission for permission in permissions if permission.issuer in policy.identities]
    if not ours:
        return Judgement(f"it does not name {' or '.join(policy.identities)}")
    by_method = [permission for permission in ours if permission.methods is None or METHOD in permission.methods]
    if not by_method:
        return Judgement(f"its validationmethods do not include {METHOD}")
    by_account = [permission for permission in by_method if _admits(permission, policy.account_uri)]
    if not by_account:
        return Judgement("its accounturi is that of another account")
    uris = {permission.account_uri for permission in by_account}
    return Judgement(
        account_uris=None if None in uris else frozenset(uri for uri in uris if uri is not None),
        binds_method=all(permission.methods is not None for permission in by_account),
    )


def is_prohibitive(record: Property) -> bool:
    """Whether a record forbids everything, as CAs do not know what it asks of them (RFC 8659, section 4.1)."""
    return bool(record.flags & CRITICAL) and record.tag not in KNOWN_TAGS


def relevant(properties: Collection[Property], *, wildcard: bool) -> list[str]:
    """The values that decide: for a wildcard those of `issuewild`, where there are any (RFC 8659, section 4.3)."""
    by_tag = {tag: [record.value for record in properties if record.tag == tag] for tag in ("issue", "issuewild")}
    return (by_tag["issuewild"] if wildcard else []) or by_tag["issue"]


def permission_text(policy: Policy) -> str:
    """The value of a property that lets only the policy's account have certificates, and only by dns-01."""
    account = policy.account_uri or "<URL of your ACME account>"
    return f"{policy.identities[0]}; validationmethods={METHOD}; accounturi={account}"


def _admits(permission: _Permission, account_uri: str | None) -> bool:
    return permission.account_uri is None or account_uri is None or permission.account_uri == account_uri


def _parse(value: str) -> _Permission | None:
    """None if it is malformed."""
    issuer, semicolon, rest = value.partition(";")
    parameters: dict[str, str] = {}
    for parameter in rest.split(";") if semicolon and rest.strip(" \t") else []:
        tag, equals, text = (part.strip(" \t") for part in parameter.partition("="))
        tag = tag.lower()
        if not equals or tag in parameters or not _TAG.fullmatch(tag) or not _VALUE.fullmatch(text):
            return None
        parameters[tag] = text
    methods = parameters.get("validationmethods")
    return _Permission(
        issuer=issuer.strip(" \t").lower(),
        account_uri=parameters.get("accounturi"),
        methods=None if methods is None else frozenset(methods.split(",")),
    )
