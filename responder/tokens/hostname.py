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
"""RFC 8555, section 8.4."""


_STRAY = re.compile(r"[^a-z0-9.-]")
"""A character that no hostname has in its ASCII form, as in a URL."""


# Hundreds of thousands of comparisons in pure Python at import would be felt; the list is read on first use.
_suffixes: list[PublicSuffixList] = []


def parse_hostname(text: str) -> Name:
    """
    Read a hostname that a certificate may name. A leading `*.` is dropped, and U-labels become A-labels (IDNA 2008).
    Labels in ASCII are taken as they are, also A-labels that IDNA 2008 would not make: such domains have certificates.

    Raises `InvalidHostname` for what no token should be minted for: IP addresses, public suffixes and single labels
    (a grant for `com` or `co.uk` is never meant), `.onion` names (RFC 7686: not in the DNS), malformed names.
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
        Name.from_labels([CHALLENGE_LABEL, *name.labels])  # the name a CA asks for must exist, too
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
    """*text*, lower-cased, with its U-labels as A-labels. Raises `InvalidName` if IDNA 2008 does not allow them."""
    if text.isascii():
        return text
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in mapped.split("."))
    except idna.IDNAError as fault:
        raise InvalidName(f"{fault} (IDNA 2008): if the domain exists, write its xn-- form") from None


def _checked(hostname: str) -> str:
    """*hostname* as it is. Raises `InvalidName` if no certificate can name it (CA/Browser Forum BR, 7.1.2.7.12)."""
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
    """Whether *text* is what Punycode makes of a label that is not in ASCII."""
    try:
        label = text.encode().decode("punycode")
        return not label.isascii() and label.encode("punycode") == text.encode()
    except UnicodeError:
        return False


def challenge_name(hostname: Name, apex: Name) -> Name:
    """
    The name below *apex* that publishes the challenge values of *hostname*.

    Inside the zone the name is the hostname's own; a hostname below the zone's parent keeps its relative part; any
    other is appended whole. The few hostnames that meet all the same (`other.org` and `other.org.example.com`) are kept
    apart by the store, which gives a challenge name to one of them only. Raises `InvalidName` if it is too long.
    """
    if hostname.is_within(apex):
        return Name.from_labels([CHALLENGE_LABEL, *hostname.labels])
    parent = apex.parent
    if hostname.is_within(parent) and hostname != parent:
        relative = hostname.relative_to(parent)
    else:
        relative = hostname.labels
    return Name.from_labels([CHALLENGE_LABEL, *relative, *apex.labels])


def home_zone(hostname: Name, apexes: list[Name]) -> Name:
    """The zone, of those we serve, whose challenge name for *hostname* is the shortest; the first if all are equal."""
    return min(apexes, key=lambda apex: len(challenge_name(hostname, apex).wire) - len(apex.wire))


def zone_of(name: Name, apexes: Iterable[Name]) -> Name | None:
    """
    The apex of the zone, of those we serve, that *name* is in. Zones do not overlap: there is one at most.

    This is for names that are not granted yet. A grant has the zone of its challenge name with it.
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
