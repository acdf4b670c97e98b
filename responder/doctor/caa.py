"""
Whether a CA may issue for a hostname (CAA, RFC 8659), and only for one account, by dns-01 (RFC 8657). Pure.

It reads values as strictly as CAs do: a malformed value allows no CA.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

METHOD = "dns-01"

KNOWN_TAGS = frozenset({"issue", "issuewild", "issuemail", "issuevmc", "iodef", "contactemail", "contactphone"})
"""Property tags in the registry of CAA. A critical property with an unknown tag forbids issuance."""

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
    """Which CA is to issue, by the domains that identify it, and for which account, if that is known."""

    identities: tuple[str, ...]
    account_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Judgment:
    """
    What a set of CAA records means for a policy. *fault* is None if they allow it.

    Issuance is limited to *account_uris*, or to no account if they are None. *binds_method* is whether it is limited to
    certain methods, dns-01 among them.
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


def judge(properties: Sequence[Property], policy: Policy, *, wildcard: bool) -> Judgment:
    """Judge the CAA records that apply to a hostname, or to its *wildcard*. No records allow all CAs."""
    for record in filter(is_prohibitive, properties):
        return Judgment(f"CAs do not know the critical property {record.tag!r}")
    values = relevant(properties, wildcard=wildcard)
    if not values:
        return Judgment()
    permissions = [permission for value in values if (permission := _parse(value)) is not None]
    ours = [permission for permission in permissions if permission.issuer in policy.identities]
    if not ours:
        return Judgment(f"it does not name {' or '.join(policy.identities)}")
    by_method = [permission for permission in ours if permission.methods is None or METHOD in permission.methods]
    if not by_method:
        return Judgment(f"its validationmethods do not include {METHOD}")
    by_account = [permission for permission in by_method if _admits(permission, policy.account_uri)]
    if not by_account:
        return Judgment("its accounturi names another account")
    uris = {permission.account_uri for permission in by_account}
    return Judgment(
        account_uris=None if None in uris else frozenset(uri for uri in uris if uri is not None),
        binds_method=all(permission.methods is not None for permission in by_account),
    )


def is_prohibitive(record: Property) -> bool:
    """Whether a record forbids issuance, because it is critical and CAs do not know it (RFC 8659, section 4.1)."""
    return bool(record.flags & CRITICAL) and record.tag not in KNOWN_TAGS


def relevant(properties: Collection[Property], *, wildcard: bool) -> list[str]:
    """The values that apply: for a wildcard those of `issuewild`, if there are any (RFC 8659, section 4.3)."""
    by_tag = {tag: [record.value for record in properties if record.tag == tag] for tag in ("issue", "issuewild")}
    return (by_tag["issuewild"] if wildcard else []) or by_tag["issue"]


def permission_text(policy: Policy) -> str:
    """The value of a property that allows only the account of *policy*, and only dns-01."""
    account = policy.account_uri or "<URL of your ACME account>"
    return f"{policy.identities[0]}; validationmethods={METHOD}; accounturi={account}"


def _admits(permission: _Permission, account_uri: str | None) -> bool:
    return permission.account_uri is None or account_uri is None or permission.account_uri == account_uri


def _parse(value: str) -> _Permission | None:
    """The permission in *value*; None if it is malformed."""
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
