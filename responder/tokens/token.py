"""
What a token is and what it may touch.

A token holds grants; a grant is one hostname together with the one challenge name in our zone that it may write.
Nothing here looks anything up: the store finds tokens, this module decides.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, assert_never
from uuid import UUID

from responder.errors import NotAChallenge, NotCovered, NotServed, Unauthenticated, WrongAccount, WrongNetwork
from responder.names import Name
from responder.tokens.hostname import CHALLENGE_LABEL
from responder.tokens.network import Network, is_within
from responder.tokens.serving import Serving
from responder.tokens.values import challenge_value, is_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """
    One hostname, and the one name in our zone that publishes its challenge values; *apex* is that of the zone.

    An account that was made by an ACME client itself names no host: its hostname *is* its challenge name.
    """

    hostname: Name
    challenge_name: Name
    apex: Name

    @property
    def names_a_host(self) -> bool:
        """Whether the hostname is known, and not just the name that some hostname's CNAME leads to."""
        return self.hostname != self.challenge_name

    def check_value(self, value: str) -> None:
        """
        Check that *value* may be published for this hostname. Raises `NotAChallenge`.

        Whoever made an account without being asked who they are may answer challenges with it, and publish nothing
        else: an SPF policy or the proof that a site is theirs would speak for the whole zone.
        """
        if not self.names_a_host and not is_digest(value):
            raise NotAChallenge(
                f"{self.challenge_name} takes answers to dns-01 challenges only: 43 characters of base64url"
            )

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

    def check_served(self, serving: Serving) -> None:
        """Raises `NotServed`, with what an administrator can do about it, if values at it are not served."""
        if (fault := serving.fault(self.challenge_name, self.apex)) is not None:
            raise NotServed(
                f"{fault}: change the configuration back, or take the hostname from its tokens (token deny)"
            )

    def is_served(self, serving: Serving) -> bool:
        """Whether values at it are served."""
        return serving.fault(self.challenge_name, self.apex) is None


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
            case unknown:
                assert_never(unknown)
        if self.allow_from and not is_within(client, self.allow_from):
            networks = ", ".join(map(str, self.allow_from))
            raise WrongNetwork(f"this token may not be used from your address ({client}): it is limited to {networks}")

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


def describe(token: Token, serving: Serving) -> dict[str, Any]:
    """What a token may do where *serving* is served, for its holder and its administrator, as JSON has it."""
    return {
        "id": str(token.id),
        "description": token.description,
        "hostnames": [
            {
                "hostname": str(grant.hostname),
                "challenge_name": str(grant.challenge_name),
                "cname": grant.cname,
                "served": grant.is_served(serving),
            }
            for grant in token.grants
        ],
        "expires_at": token.expires_at.isoformat() if token.expires_at else None,
        "allow_from": [str(network) for network in token.allow_from],
        "account_thumbprint": token.account_thumbprint,
    }


def tsig_key_name(token: Token) -> str:
    """The name of the key with which a token's holder signs DNS updates: one label, another one after each rotation."""
    return f"{token.id}-{token.generation}"
