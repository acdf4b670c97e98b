"""Certificates and the keys that belong to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from responder.errors import Invalid
from responder.names import Name
from responder.tls.keypair import KeyPair
from tests.support.keypairs import PrivateKey, key_pair, pem

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_a_pair(key: PrivateKey) -> None:
    """A certificate with the key that belongs to it is taken as it is, whatever stands around it."""
    pair = key_pair("api.example.com", key=key, begins=NOW, lifetime=timedelta(days=2))
    other = key_pair("ca.example.com")

    again = KeyPair.parse(b"a note\n" + pair.chain + other.chain, b"\n" + pair.key)

    assert pair.leaf == again.leaf
    assert (NOW, NOW + timedelta(days=2)) == (again.not_before, again.not_after)
    assert "CN=api.example.com" == again.issuer


def test_the_key_is_not_shown() -> None:
    """What is printed of a pair, by accident, has nothing of the key."""
    pair = key_pair("api.example.com")

    assert "PRIVATE" not in repr(pair)
    assert pair.key.decode().splitlines()[1] not in repr(pair)


PAIR = key_pair("api.example.com")
NO_CERTIFICATE = "the certificate file has no certificate in PEM, or a damaged one"
NO_KEY = "the private key file has no private key in PEM, or a damaged one"


@pytest.mark.parametrize(
    ("chain", "key", "fault"),
    [
        (b"", PAIR.key, NO_CERTIFICATE),
        (PAIR.key, PAIR.chain, NO_CERTIFICATE),
        (PAIR.chain[:200], PAIR.key, NO_CERTIFICATE),
        (PAIR.chain.replace(b"M", b"N", 1), PAIR.key, NO_CERTIFICATE),
        (PAIR.chain, b"", NO_KEY),
        (PAIR.chain, PAIR.chain, NO_KEY),
        (PAIR.chain, PAIR.key[:60], NO_KEY),
        (
            PAIR.chain,
            key_pair("x.example").key,
            "the private key does not belong to the certificate: use the key that it was issued for",
        ),
        (
            PAIR.chain,
            pem(ec.generate_private_key(ec.SECP256R1()), b"secret"),
            "the private key is encrypted: remove its passphrase",
        ),
    ],
    ids=range(9),
)
def test_what_is_no_pair(chain: bytes, key: bytes, fault: str) -> None:
    """What cannot be used is refused in one line that says which of the two it is."""
    with pytest.raises(Invalid) as caught:
        KeyPair.parse(chain, key)

    assert fault == str(caught.value)


def test_self_signed() -> None:
    """Before there is any certificate, there is one of our own making, good for its host and for a while."""
    pair = KeyPair.self_signed(Name.parse("api.acme.example.com"), now=NOW)

    assert pair.leaf == KeyPair.parse(pair.chain, pair.key).leaf
    assert pair.covers(Name.parse("api.acme.example.com"))
    assert pair.not_before < NOW < pair.not_after
    pair.leaf.verify_directly_issued_by(pair.leaf)


def test_self_signed_without_a_host() -> None:
    """The host may be unknown, or too long for the field that once held it."""
    long = Name.parse(f"{'a' * 63}.{'b' * 63}.example.com")

    assert KeyPair.self_signed(None, now=NOW).covers(Name.parse("localhost"))
    assert KeyPair.self_signed(long, now=NOW).covers(long)


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("api.example.com", True),
        ("API.example.com", True),
        ("any.wild.example.com", True),
        ("a.b.wild.example.com", False),
        ("wild.example.com", False),
        ("example.com", False),
    ],
)
def test_covers(hostname: str, expected: bool) -> None:  # noqa: FBT001
    """A host is covered by its name, or by a wildcard for its parent."""
    assert expected == key_pair("API.example.com", "*.wild.example.com").covers(Name.parse(hostname))
