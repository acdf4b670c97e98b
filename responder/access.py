"""
What a token is and what it may touch.

A token holds grants; a grant is one hostname together with the one challenge name in our zone that it may write.
Nothing here looks anything up: the store finds tokens, this module decides.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, NewType
from uuid import UUID

import idna
from publicsuffixlist import PublicSuffixList

from responder.addresses import parse_address
from responder.errors import (
    InvalidHostname,
    InvalidName,
    NotCovered,
    NotServed,
    Unauthenticated,
    WrongAccount,
    WrongNetwork,
)
from responder.names import Name

Secret = NewType("Secret", str)
"""The text of a token, as its holder knows it: shown once, never stored, never logged."""

Digest = NewType("Digest", bytes)
"""SHA-256 of a secret: what is stored and looked up."""

Network = IPv4Network | IPv6Network

PREFIX = "rsp_"
"""Starts every secret, so that secret scanners can find leaks."""

SECRET_BYTES = 32
"""256 bits of entropy: beyond guessing, so a fast digest is enough (a slow one is a lever for CPU floods)."""

CHALLENGE_LABEL = b"_acme-challenge"
"""RFC 8555, section 8.4."""

_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses, as they are written in IPv6 (RFC 4291, section 2.5.5.2)."""

_STRAY = re.compile(r"(?![a-z0-9.-])[\x00-\x7f]")
"""What of ASCII no hostname holds, as in a URL; of the rest of Unicode IDNA decides."""

# Hundreds of thousands of comparisons in pure Python at import would be felt; the list is read on first use.
_suffixes: list[PublicSuffixList] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """
    One hostname, and the one name in our zone that publishes its challenge values.

    An account that was made by an ACME client itself names no host: its hostname *is* its challenge name.
    """

    hostname: Name
    challenge_name: Name

    @property
    def names_a_host(self) -> bool:
        """Whether the hostname is known, and not just the name that some hostname's CNAME leads to."""
        return self.hostname != self.challenge_name

    @property
    def delegated_name(self) -> Name:
        """The name a CA asks for, and that a CNAME sends to the challenge name (RFC 8555, section 8.4)."""
        return Name.from_labels([CHALLENGE_LABEL, *self.hostname.labels])

    @property
    def cname(self) -> str | None:
        """The record to put in the hostname's own zone, as zone text; None where the name is ours, or nobody's yet."""
        if self.challenge_name in (self.hostname, self.delegated_name):
            return None
        return f"{self.delegated_name.fqdn} 300 IN CNAME {self.challenge_name.fqdn}"


class State(Enum):
    """Whether a token is good for anything."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer credential as the store knows it, without its secret."""

    id: UUID
    description: str | None
    grants: tuple[Grant, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    allow_from: tuple[Network, ...] = ()
    account_thumbprint: str | None = None
    generation: int = 1
    """Counts its secrets: 1 until it is rotated. *expires_at* is that of the secret that was presented."""
    _by_challenge_name: dict[Name, Grant] = field(init=False, repr=False, compare=False)
    _by_hostname: dict[Name, Grant] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_challenge_name", {grant.challenge_name: grant for grant in self.grants})
        object.__setattr__(self, "_by_hostname", {grant.hostname: grant for grant in self.grants})

    def state(self, now: datetime) -> State:
        """What has become of it; one that was revoked stays so, expired or not."""
        if self.revoked_at is not None:
            return State.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return State.EXPIRED
        return State.ACTIVE

    def admit(self, client: str, *, now: datetime) -> None:
        """
        Check that this token may be used now and from the address *client*.

        Raises `Unauthenticated` or `WrongNetwork`.
        """
        match self.state(now):
            case State.ACTIVE:
                pass
            case State.EXPIRED:
                raise Unauthenticated("this token has expired: ask your platform team for a new one")
            case State.REVOKED:
                raise Unauthenticated("this token was revoked: ask your platform team for a new one")
        if self.allow_from and not any(parse_address(client) in network for network in self.allow_from):
            raise WrongNetwork(
                f"this token may not be used from your address: it is limited to {', '.join(map(str, self.allow_from))}"
            )

    def check_account(self, value: str, acme_token: str | None) -> None:
        """
        Check that *value* is for the ACME account that this token is pinned to, if it is.

        The value of a challenge is a digest of the CA's *acme_token* and the account's thumbprint (RFC 8555, section
        8.1 and 8.4), so whoever shows the former proves the latter. Raises `WrongAccount`.
        """
        if self.account_thumbprint is None:
            return
        if acme_token is None:
            raise WrongAccount(
                "this token is pinned to an ACME account: use POST /present, with the challenge's own token as "
                "acme_token beside fqdn and value, or in lego's RAW mode"
            )
        if not secrets.compare_digest(challenge_value(f"{acme_token}.{self.account_thumbprint}"), value):
            raise WrongAccount(
                "this token is pinned to an ACME account, and the value is not one of that account: use the account "
                "that it was minted for"
            )

    def grant_for(self, name: Name) -> Grant:
        """
        The grant that covers *name*: a challenge name, or a hostname's own `_acme-challenge` name.

        Raises `NotCovered`, telling the caller nothing but what this very token covers.
        """
        grant = self._by_challenge_name.get(name)
        if grant is None and name.labels[:1] == [CHALLENGE_LABEL]:
            grant = self._by_hostname.get(name.parent)
        if grant is None and name in self._by_hostname:
            challenge = Name.from_labels([CHALLENGE_LABEL, *name.labels])
            raise NotCovered(f"{name} is a hostname: write its challenge name, {challenge}")
        if grant is None:
            covered = ", ".join(str(grant.hostname) for grant in self.grants[:10]) or "no hostname"
            more = f" and {len(self.grants) - 10} more" if len(self.grants) > 10 else ""
            raise NotCovered(f"this token does not cover {name}: it covers {covered}{more}")
        return grant


def describe(token: Token) -> dict[str, Any]:
    """What a token may do, for its holder and its administrator, as JSON has it."""
    return {
        "id": str(token.id),
        "description": token.description,
        "hostnames": [
            {
                "hostname": str(grant.hostname),
                "challenge_name": str(grant.challenge_name),
                "cname": grant.cname,
            }
            for grant in token.grants
        ],
        "expires_at": token.expires_at.isoformat() if token.expires_at else None,
        "allow_from": [str(network) for network in token.allow_from],
        "account_thumbprint": token.account_thumbprint,
    }


def challenge_value(key_authorization: str) -> str:
    """The TXT value that answers a challenge (RFC 8555, section 8.4)."""
    hashed = hashlib.sha256(key_authorization.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()


def tsig_key_name(token: Token) -> str:
    """The name of the key with which a token's holder signs DNS updates: one label, another one after each rotation."""
    return f"{token.id}-{token.generation}"


def tsig_secret(master: bytes, key_name: str) -> bytes:
    """The 32 octets of that key, made from the server's own *master*: the database alone does not give them away."""
    return hmac.digest(master, b"tsig:" + key_name.encode(), "sha256")


def mint_secret() -> Secret:
    """A new secret from the operating system's random source."""
    return Secret(PREFIX + secrets.token_urlsafe(SECRET_BYTES))


def digest(secret: str) -> Digest:
    """
    What the store keeps of a secret.

    Looking a digest up in an index leaks, by its timing, at most something about SHA-256 of a guess, which helps
    nobody to guess 256 bits; the comparison that decides is `secrets.compare_digest`, where the store finds a row.
    """
    return Digest(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest())


def parse_network(text: str, *, strict: bool = True) -> Network:
    """
    A network in CIDR notation; if *strict*, without bits beyond its prefix. One of IPv4 addresses in IPv6's clothes
    counts as what it is, just as the addresses do (see `parse_address`): otherwise, it would hold none of them.

    Raises `ValueError`, also for one in a zone of IPv6 (RFC 4007, section 11). No request ever comes from there, as an
    address loses its zone when it is read; and a zone may be any text whatever, with which nobody reckons in a network.
    """
    if "%" in text:
        raise ValueError("a network has no zone")
    network = ip_network(text, strict=strict)
    if network.version == 6 and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[-4:], network.prefixlen - _MAPPED.prefixlen))
    return network


def is_near(host: str) -> bool:
    """Whether a token may go to *host* unencrypted: to a Service of the same cluster, or within this machine or pod."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.split(".")[2:3] == ["svc"]  # NAME.NAMESPACE.svc; what follows is the cluster's domain, and any


def parse_hostname(text: str) -> Name:
    """
    Read a hostname that a certificate may name; a leading `*.` is dropped, U-labels become A-labels (IDNA 2008).

    Raises `InvalidHostname` for what no token should be minted for: IP addresses, public suffixes and single labels
    (a grant for `com` or `co.uk` is never meant), `.onion` names (RFC 7686: not in the DNS), malformed names.
    """
    bare = text.strip().removeprefix("*.").removesuffix(".").lower()
    if bare.startswith(f"{CHALLENGE_LABEL.decode()}."):
        raise InvalidHostname(f"{text!r} is a challenge name: write the hostname, {bare.partition('.')[2]}")
    if _is_address(bare):
        raise InvalidHostname(f"{text!r} is an IP address: dns-01 validates names only (RFC 8738, section 7)")
    if stray := _STRAY.search(bare):
        raise InvalidHostname(f"{text[:80]!r} is not a hostname: it holds {stray[0]!r}: write it like some.example.com")
    try:
        name = Name.parse(idna.encode(bare, uts46=True).decode("ascii"))
        Name.from_labels([CHALLENGE_LABEL, *name.labels])  # the name a CA asks for must exist, too
    except (idna.IDNAError, InvalidName) as fault:
        raise InvalidHostname(f"{text[:80]!r} is not a hostname: {fault}") from None
    labels = name.labels
    if labels[-1].isdigit():  # only now: the mapping turns full-width digits and dots into plain ones
        raise InvalidHostname(f"{text!r} ends in a number, as only IP addresses do: write the name of a host")
    if labels[-1] == b"onion":
        raise InvalidHostname(f"{text!r} is an .onion name: the DNS does not resolve those (RFC 7686)")
    if len(labels) < 2 or _is_public_suffix(str(name)):
        raise InvalidHostname(f"{text!r} is a public suffix: a token for it would be a token for everybody below it")
    return name


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
    """The apex of the zone, of those we serve, that *name* is in. Zones do not overlap: there is one at most."""
    return next((apex for apex in apexes if name.is_within(apex)), None)


def served_zone(name: Name, apexes: Iterable[Name]) -> Name:
    """As `zone_of`, for a challenge name that was granted. Raises `NotServed` if its zone has gone."""
    apex = zone_of(name, apexes)
    if apex is None:
        raise NotServed(f"{name} is in no zone that is served here any more: put its zone back, or deny it")
    return apex


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
