"""
What a token is and what it may touch.

A token has grants. A grant is one hostname together with the challenge name in our zone that it may write. The store
finds tokens; this module decides what they may do.
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
from responder.tokens.hostname import CHALLENGE_LABEL, delegated_name
from responder.tokens.network import Network, is_within
from responder.tokens.serving import Serving
from responder.tokens.values import challenge_value, is_digest

TEMPORARY = ("responder issue", "responder check")
"""The descriptions of tokens that commands mint for themselves, with an expiry, and revoke when they end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """
    One hostname, and the one name in our zone that publishes its challenge values; *apex* is the apex of the zone.

    An account that an ACME client registered itself has no hostname: there, *hostname* is the challenge name.
    """

    hostname: Name
    challenge_name: Name
    apex: Name

    @property
    def names_a_host(self) -> bool:
        """Whether the hostname is known. It is not for a registered account: only the target of its CNAME is."""
        return self.hostname != self.challenge_name

    def check_value(self, value: str) -> None:
        """
        Check that *value* may be published for this hostname. Raises `NotAChallenge`.

        An account that a client registered without authentication may only publish answers to challenges. Other text,
        such as an SPF policy or a proof of ownership for a website, could be misused in the name of the zone.
        """
        if not self.names_a_host and not is_digest(value):
            raise NotAChallenge(
                f"{self.challenge_name} accepts only dns-01 challenge values: 43 characters of base64url"
            )

    @property
    def delegated_name(self) -> Name:
        """The name that a CA queries, and that a CNAME points to the challenge name (RFC 8555, section 8.4)."""
        return delegated_name(self.hostname)

    @property
    def is_delegated(self) -> bool:
        """Whether the name that a CA queries is the apex of our zone: NS records lead to it instead of a CNAME."""
        return self.delegated_name == self.challenge_name == self.apex

    @property
    def needs(self) -> str:
        """What the DNS of the hostname needs: a record as zone text, or a sentence."""
        if self.is_delegated:
            return f"no CNAME, but the NS records for {self.apex} that responder zone delegation prints"
        return self.cname or f"no CNAME needed, {self.challenge_name} is in our zone"

    @property
    def cname(self) -> str | None:
        """
        The record for the hostname's own zone, as zone text; None if the name that a CA queries is in our zone, or the
        hostname is unknown.
        """
        if self.challenge_name in (self.hostname, self.delegated_name):
            return None
        return f"{self.delegated_name.fqdn} 300 IN CNAME {self.challenge_name.fqdn}"

    def check_served(self, serving: Serving) -> None:
        """Check that values at the challenge name are served. Raises `NotServed`, whose text has the fix."""
        if (fault := serving.fault(self.challenge_name, self.apex)) is not None:
            raise NotServed(
                f"{fault}: change the configuration back, or remove the hostname from its tokens (token deny)"
            )

    def is_served(self, serving: Serving) -> bool:
        """Whether values at the challenge name are served."""
        return serving.fault(self.challenge_name, self.apex) is None


class State(Enum):
    """Whether a token can be used."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer credential as the store has it, without its secret."""

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
    """The number of the presented secret: 1 until the token is rotated. *expires_at* is the expiry of that secret."""
    _by_challenge_name: dict[Name, Grant] = field(init=False, repr=False, compare=False)
    _by_hostname: dict[Name, Grant] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The first of several hostnames that share a name stands for them.
        by_challenge_name = {grant.challenge_name: grant for grant in reversed(self.grants)}
        object.__setattr__(self, "_by_challenge_name", by_challenge_name)
        object.__setattr__(self, "_by_hostname", {grant.hostname: grant for grant in self.grants})

    def state(self, now: datetime) -> State:
        """The state at *now*. A revoked token stays revoked, even when it has expired."""
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
        If this token is pinned to an ACME account, check that *value* is for that account.

        The value of a challenge is a digest of the CA's *acme_token* and the account's thumbprint (RFC 8555, sections
        8.1 and 8.4), so the *acme_token* proves which account the value is for. Raises `WrongAccount`.
        """
        if self.account_thumbprint is None:
            return
        if acme_token is None:
            raise WrongAccount(
                "this token is pinned to an ACME account: use POST /present, with the challenge's own token as "
                "acme_token next to fqdn and value, or use lego's RAW mode"
            )
        if not secrets.compare_digest(challenge_value(f"{acme_token}.{self.account_thumbprint}"), value):
            raise WrongAccount(
                "this token is pinned to an ACME account, and the value is not one of that account: use the account "
                "that it was minted for"
            )

    def grant_for(self, name: Name) -> Grant:
        """
        The grant that covers *name*: a challenge name, or a hostname's own `_acme-challenge` name.

        Raises `NotCovered`, whose text names only what this token covers.
        """
        grant = self._by_challenge_name.get(name)
        if grant is None and name.labels[:1] == [CHALLENGE_LABEL]:
            grant = self._by_hostname.get(name.parent)
        if grant is None and name in self._by_hostname:
            raise NotCovered(f"{name} is a hostname: write its challenge name, {delegated_name(name)}")
        if grant is None:
            covered = ", ".join(str(grant.hostname) for grant in self.grants[:10]) or "no hostname"
            more = f" and {len(self.grants) - 10} more" if len(self.grants) > 10 else ""
            raise NotCovered(f"this token does not cover {name}: it covers {covered}{more}")
        return grant


def describe(token: Token, serving: Serving) -> dict[str, Any]:
    """What a token may do on a node that serves *serving*, as JSON for its holder and for administrators."""
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
    """The name of a token's key for DNS updates: one label, which changes with each rotation."""
    return f"{token.id}-{token.generation}"
