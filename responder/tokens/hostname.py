"""
Hostnames that a token may be minted for, and the challenge name in our zones that belongs to each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

import idna
from publicsuffixlist import PublicSuffixList

from responder.errors import InvalidHostname, InvalidName
from responder.names import Name

CHALLENGE_LABEL = b"_acme-challenge"
"""The first label of every name that a CA queries (RFC 8555, section 8.4)."""


_STRAY = re.compile(r"[^a-z0-9.-]")
"""A character that is not allowed in the ASCII form of a hostname."""


# The list is read on first use, because it takes hundreds of thousands of comparisons in Python.
_suffixes: list[PublicSuffixList] = []


def parse_hostname(text: str) -> Name:
    """
    Read a hostname that a certificate may name. A leading `*.` is dropped, and U-labels become A-labels (IDNA 2008).
    Labels in ASCII are not changed, even A-labels that IDNA 2008 does not allow: such domains have certificates.

    Raises `InvalidHostname` if no token should be minted for it: for IP addresses, public suffixes and single labels (a
    grant for `com` or `co.uk` is always a mistake), `.onion` names (they are not in the DNS, RFC 7686), and malformed
    names.
    """
    try:
        bare = _to_ascii(text.strip().removeprefix("*.").removesuffix(".").lower())
    except InvalidName as fault:
        raise InvalidHostname(f"{text[:80]!r} is not a hostname: {fault}") from None
    if bare.startswith(f"{CHALLENGE_LABEL.decode()}."):
        raise InvalidHostname(f"{text!r} is a challenge name: write the hostname, {bare.partition('.')[2]}")
    if _is_address(bare):
        raise InvalidHostname(f"{text!r} is an IP address: dns-01 validates names only (RFC 8738, section 7)")
    try:
        name = Name.parse(_checked(bare))
        Name.from_labels([CHALLENGE_LABEL, *name.labels])  # the name that a CA queries must not be too long either
    except InvalidName as fault:
        raise InvalidHostname(f"{text[:80]!r} is not a hostname: {fault}") from None
    labels = name.labels
    if labels[-1].isdigit():
        raise InvalidHostname(f"{text!r} ends in a number, as only IP addresses do: write the name of a host")
    if labels[-1] == b"onion":
        raise InvalidHostname(f"{text!r} is an .onion name: the DNS does not resolve those (RFC 7686)")
    if len(labels) < 2 or _is_public_suffix(str(name)):
        raise InvalidHostname(f"{text!r} is a public suffix: a token for it would be a token for every name below it")
    return name


def _to_ascii(text: str) -> str:
    """*text* with A-labels instead of U-labels. Raises `InvalidName` if IDNA 2008 does not allow them."""
    if text.isascii():
        return text
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
    except idna.IDNAError:
        raise InvalidName(_NOT_ALLOWED.format("it")) from None
    return ".".join(label if label.isascii() else _a_label(label) for label in mapped.split("."))


_NOT_ALLOWED = "{} is not allowed in internationalized names (IDNA 2008): if the domain exists, write its xn-- form"


def _a_label(label: str) -> str:
    try:
        return idna.alabel(label).decode()
    except idna.IDNAError:
        raise InvalidName(_NOT_ALLOWED.format(f"its label {label!r}")) from None


def _checked(hostname: str) -> str:
    """Return *hostname*. Raises `InvalidName` if no certificate can name it (CA/Browser Forum BR, 7.1.2.7.12)."""
    if "_" in hostname:
        raise InvalidName("it has an underscore, and CAs issue no certificate for such a name")
    if stray := _STRAY.search(hostname):
        raise InvalidName(f"it has the character {stray[0]!r}: write it like some.example.com")
    for label in hostname.split("."):
        if label.startswith("-") or label.endswith("-"):
            raise InvalidName(f"its label {label!r} begins or ends with a hyphen")
        if label.startswith("xn--"):
            if not _is_punycode(label.removeprefix("xn--")):
                raise InvalidName(f"its label {label!r} is not the xn-- form of any text (RFC 3492)")
        elif label[2:4] == "--":
            raise InvalidName(f"its label {label!r} has a hyphen third and fourth, as only xn-- labels may")
    return hostname


def _is_punycode(text: str) -> bool:
    """Whether *text* is the Punycode form of a label that is not in ASCII."""
    try:
        label = text.encode().decode("punycode")
        return not label.isascii() and label.encode("punycode") == text.encode()
    except UnicodeError:
        return False


def delegated_name(hostname: Name) -> Name:
    """The name that a CA queries for the challenge values of *hostname* (RFC 8555, section 8.4)."""
    return Name.from_labels([CHALLENGE_LABEL, *hostname.labels])


def challenge_name(hostname: Name, apex: Name) -> Name:
    """
    The name in the zone of *apex* that publishes the challenge values of *hostname*.

    If the name that a CA queries is in the zone, it is that name: below the apex for a hostname inside the zone, or the
    apex itself. For a hostname below the parent of the zone, the part below the parent is put in front of the apex; for
    any other, the whole hostname. Some hostnames get the same name (`other.org` and `other.org.example.com`): the store
    grants them to one token only. Raises `InvalidName` if the name is too long.
    """
    if (asked := delegated_name(hostname)).is_within(apex):
        return asked
    parent = apex.parent
    if hostname.is_within(parent) and hostname != parent:
        relative = hostname.relative_to(parent)
    else:
        relative = hostname.labels
    return Name.from_labels([CHALLENGE_LABEL, *relative, *apex.labels])


def home_zone(hostname: Name, apexes: list[Name]) -> Name:
    """
    The zone in which the challenge name of *hostname* is the shortest; the first one if several are equal.

    A zone whose apex is a name that a CA queries is only for the hostnames whose queried name is in it, unless there is
    no other zone.
    """
    asked = delegated_name(hostname)
    fit = [apex for apex in apexes if apex.labels[:1] != [CHALLENGE_LABEL] or asked.is_within(apex)]
    return min(fit or apexes, key=lambda apex: len(challenge_name(hostname, apex).wire) - len(apex.wire))


def zone_of(name: Name, apexes: Iterable[Name]) -> Name | None:
    """
    The apex of the zone with *name* in it, or None. Zones do not overlap, so there is at most one.

    This is for names that are not granted yet: a grant has the apex of its zone.
    """
    return next((apex for apex in apexes if name.is_within(apex)), None)


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _is_public_suffix(hostname: str) -> bool:
    if not _suffixes:
        _suffixes.append(PublicSuffixList())
    return bool(_suffixes[0].is_public(hostname))
