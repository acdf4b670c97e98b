"""
The ACME half of cert-manager: an account, an order with its dns-01 challenges, and the certificate; what is between the
challenges and the CA's look at them is up to the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from acme import challenges, messages
from acme.client import ClientNetwork, ClientV2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from tests.support.processes import PATIENCE

from .pebble import Authority
from .programs import wait_until


@dataclass(frozen=True, slots=True)
class Challenge:
    """One dns-01 challenge: for the hostname (without any `*.`), the value that the CA looks for, and ACME's token."""

    hostname: str
    value: str
    token: str
    is_wildcard: bool
    authorization: messages.AuthorizationResource
    body: messages.ChallengeBody


class Account:
    """A new account with the CA."""

    def __init__(self, client: ClientV2, key: JWKEC) -> None:
        self._client = client
        self._key = key

    @classmethod
    def register(cls, authority: Authority) -> Self:
        key = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
        trusted: Any = str(authority.tls)  # requests takes a file, too, where a truth value is announced
        network = ClientNetwork(key, alg=ES256, verify_ssl=trusted, timeout=int(PATIENCE))
        client = ClientV2(ClientV2.get_directory(authority.directory_url, network), network)
        client.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))
        return cls(client, key)

    def order(self, *names: str) -> messages.OrderResource:
        """An order for one certificate with all the names."""
        return self._client.new_order(_request(names))

    def challenges(self, order: messages.OrderResource) -> Iterator[Challenge]:
        """The dns-01 challenge of each authorization that the order asks for."""
        for authorization in order.authorizations:
            (body,) = [body for body in authorization.body.challenges if isinstance(body.chall, challenges.DNS01)]
            yield Challenge(
                hostname=authorization.body.identifier.value,
                value=body.chall.validation(self._key),
                token=body.chall.encode("token"),
                is_wildcard=bool(authorization.body.wildcard),
                authorization=authorization,
                body=body,
            )

    def validate(self, challenge: Challenge) -> None:
        """Let the CA look, and wait until it has found what it looks for; fails if it has not."""
        self._client.answer_challenge(challenge.body, challenge.body.chall.response(self._key))
        status = wait_until(lambda: self._final_status(challenge), "the CA has made up its mind")
        assert messages.STATUS_VALID == status

    def finalize(self, order: messages.OrderResource) -> str:
        """The certificate, with its chain, in PEM."""
        # The client compares with the local time without a zone.
        deadline = datetime.now(UTC).astimezone().replace(tzinfo=None) + timedelta(seconds=PATIENCE)
        return str(self._client.finalize_order(order, deadline).fullchain_pem)

    def close(self) -> None:
        self._client.net.session.close()

    def _final_status(self, challenge: Challenge) -> messages.Status | None:
        authorization, _ = self._client.poll(challenge.authorization)
        status: messages.Status = authorization.body.status
        return None if status == messages.STATUS_PENDING else status


def _request(names: tuple[str, ...]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    )
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
