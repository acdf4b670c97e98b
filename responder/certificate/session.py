"""
A session with a CA. Requests block, and are sent one at a time: `authority` runs them outside the event loop.

It adds to the library orders that replace a certificate, and queries of one object without sleeping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from acme import challenges, errors, messages
from acme.client import ClientV2
from josepy.json_util import field

from responder.certificate.faults import shown
from responder.certificate.network import AcmeNetwork


class Session(ClientV2):
    """One account's session. Raises what the libraries raise."""

    net: AcmeNetwork

    @classmethod
    def open(cls, url: str, network: AcmeNetwork) -> Self:
        """Fetch the directory at *url*."""
        directory = cls.get_directory(url, network)
        for resource in ("newNonce", "newAccount", "newOrder"):
            directory[resource]  # KeyError: this is not the directory of a CA
        return cls(directory, network)

    @property
    def terms(self) -> str | None:
        """The URL of the terms of service of the CA."""
        found = self._meta("terms_of_service")
        return None if found is None else str(found)

    @property
    def caa_identities(self) -> tuple[str, ...]:
        """The domains that allow this CA in a CAA record (RFC 8555, section 7.1.1)."""
        return tuple(map(str, self._meta("caa_identities") or ()))

    @property
    def wants_binding(self) -> bool:
        return bool(self._meta("external_account_required"))

    @property
    def renewal_info(self) -> str | None:
        """The URL of renewal information (RFC 9773, section 4.1)."""
        return str(self.directory["renewalInfo"]) if hasattr(self.directory, "renewalInfo") else None

    def find_account(self) -> str | None:
        """The URL of the account with our key, if there is one (RFC 8555, section 7.3.1)."""
        wanted = messages.RegistrationResource(body=messages.Registration(), uri="")
        try:
            account: str = self.query_registration(wanted).uri
        except messages.Error as problem:
            if problem.code != "accountDoesNotExist":
                raise
            return None
        return account

    def make_account(self, contact: str, binding: tuple[str, str] | None) -> str:
        """The URL of a new account, whose owner agrees to the terms. *binding* is a key identifier and HMAC key."""
        bound = None
        if binding is not None:
            kid, hmac_key = binding
            public = self.net.key.public_key() if self.net.key else None
            bound = messages.ExternalAccountBinding.from_data(public, kid, hmac_key, self.directory)
        try:
            account = self.new_account(
                messages.NewRegistration.from_data(
                    email=contact or None, terms_of_service_agreed=True, external_account_binding=bound
                )
            )
        except errors.ConflictError as found:  # another process with the same key was faster
            account = messages.RegistrationResource(body=messages.Registration(), uri=found.location)
            self.net.account = account
        return str(account.uri)

    def place(self, names: Sequence[str], replaces: str | None) -> Order:
        """Order a certificate for *names*, which replaces the one with the identifier *replaces* (RFC 9773, 5)."""
        identifiers = [messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name) for name in names]
        try:
            response = self._post(
                self.directory["newOrder"], _NewOrder(identifiers=identifiers, replaces=replaces or "")
            )
        except errors.ConflictError:  # RFC 9773, section 7.4: it was replaced already
            if replaces is None:
                raise
            return self.place(names, None)
        body = messages.Order.from_json(response.json())
        return Order(str(response.headers["Location"]), str(body.finalize), tuple(map(str, body.authorizations)))

    def authorization(self, url: str) -> Authorization:
        body = self._authzr_from_response(self._post_as_get(url), uri=url).body
        offered = (each for each in body.challenges or () if isinstance(each.chall, challenges.DNS01))
        return Authorization(url, shown(str(body.identifier.value)), body.status, next(offered, None))

    def begin_validation(self, authorization: Authorization) -> None:
        """Ask the CA to validate the challenge."""
        challenge = authorization.challenge
        if challenge is not None:
            self.answer_challenge(challenge, challenge.response(self.net.key))

    def finalize(self, url: str, csr_pem: bytes) -> None:
        order = messages.Order(finalize=url)
        self.begin_finalization(messages.OrderResource(body=order, uri=url, csr_pem=csr_pem, authorizations=[]))

    def order(self, url: str) -> messages.Order:
        order: messages.Order = messages.Order.from_json(self._post_as_get(url).json())
        return order

    def certificate(self, url: str) -> bytes:
        """The chain, in PEM."""
        return self._post_as_get(url).text.encode()

    def window(self, certificate_id: str) -> tuple[datetime, datetime]:
        """When the CA suggests to renew a certificate: the first and the last moment."""
        response = self.net.get(f"{str(self.renewal_info).rstrip('/')}/{certificate_id}")
        window = messages.RenewalInfo.from_json(response.json()).suggested_window
        if window.start > window.end:
            raise ValueError("a window that ends before it begins (RFC 9773, section 4.2)")
        return window.start, window.end

    def _meta(self, member: str) -> Any:
        return getattr(self.directory.meta, member, None)


@dataclass(frozen=True, slots=True)
class Order:
    """The URLs of an order: itself, where it is finalized, its authorizations."""

    url: str
    finalize_url: str
    authorizations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Authorization:
    """The status of *hostname* at the CA, and its dns-01 challenge, if the CA offers one."""

    url: str
    hostname: str
    status: messages.Status
    challenge: messages.ChallengeBody | None


class _NewOrder(messages.NewOrder):
    replaces: str = field("replaces", omitempty=True)
