"""
A certificate with its chain and its private key, as one value. It is parsed, checked, or self-signed here, without
files or network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from responder.errors import Invalid
from responder.foreign import printable
from responder.names import Name

SELF_SIGNED_LIFETIME = timedelta(days=30)
"""Long enough to find out why there is no other certificate. No client trusts this one."""

MAX_COMMON_NAME = 64
"""Characters of a common name (RFC 5280, appendix A: ub-common-name)."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate *chain*, with the certificate of the server first, and its private *key*, both in PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    leaf: x509.Certificate = field(repr=False, compare=False)

    @classmethod
    def parse(cls, chain: bytes, key: bytes) -> Self:
        """Check that *key* belongs to the first certificate of *chain*. Raises `Invalid`, which never has the key."""
        try:
            leaf = x509.load_pem_x509_certificates(chain)[0]
            certified = leaf.public_key()
        except (ValueError, UnsupportedAlgorithm):
            raise Invalid("the certificate file has no certificate in PEM, or a damaged one") from None
        try:
            private = serialization.load_pem_private_key(key, None)
        except TypeError:  # cryptography raises this if a password is missing
            raise Invalid("the private key is encrypted: remove its passphrase") from None
        except (ValueError, UnsupportedAlgorithm):
            raise Invalid("the private key file has no private key in PEM, or a damaged one") from None
        if private.public_key() != certified:
            raise Invalid("the private key does not belong to the certificate: use the key that it was issued for")
        return cls(chain, key, leaf)

    @classmethod
    def self_signed(cls, hostname: Name | None, *, now: datetime) -> Self:
        """A self-signed certificate with a new key, for *hostname* if there is one."""
        key = new_key()
        text = str(hostname or "localhost")
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text if len(text) <= MAX_COMMON_NAME else "self")])
        leaf = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))  # for clients whose clock is slow
            .not_valid_after(now + SELF_SIGNED_LIFETIME)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(text)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(leaf.public_bytes(serialization.Encoding.PEM), key_pem(key), leaf)

    @property
    def not_before(self) -> datetime:
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        return self.leaf.not_valid_after_utc

    @property
    def issuer(self) -> str:
        """The name of the issuer, as text for a user."""
        return issuer(self.leaf)

    def covers(self, hostname: Name) -> bool:
        """Whether a client of *hostname* accepts the name in the certificate."""
        return covers(self.leaf, hostname)


def issuer(certificate: x509.Certificate) -> str:
    """The name of the issuer, as text for a user. Control characters are removed: anyone can make such a name."""
    return printable(certificate.issuer.rfc4514_string())


def refusal(certificate: x509.Certificate, hostname: Name | None, *, now: datetime) -> str:
    """Why clients of *hostname* refuse the certificate, apart from its issuer; "" if dates and name are right."""
    if certificate.not_valid_after_utc <= now:
        return "it has expired"
    if now < certificate.not_valid_before_utc:
        return "it is not valid yet, or the clock of this machine is behind"
    if hostname is not None and not covers(certificate, hostname):
        return f"it is not for {hostname}"
    return ""


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether issuer and subject are the same, so that no CA has issued it."""
    return certificate.issuer == certificate.subject


def covers(certificate: x509.Certificate, hostname: Name) -> bool:
    """Whether *hostname* is in the certificate, also by a wildcard (RFC 9525, section 6.3)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return False
    wildcard = f"*.{hostname.parent}"
    return any(name.lower() in (str(hostname), wildcard) for name in names.value.get_values_for_type(x509.DNSName))


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new key (P-256). Every CA and every client supports it, and handshakes need the least time."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
