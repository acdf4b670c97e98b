"""Certificates with their keys, of every kind a test may want, signed by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from responder.tls.keypair import KeyPair

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

HOUR = timedelta(hours=1)


def key_pair(
    *names: str,
    key: PrivateKey | None = None,
    begins: datetime | None = None,
    lifetime: timedelta = timedelta(days=90),
    serial: int | None = None,
) -> KeyPair:
    """A certificate for *names* that lives so long from when it *begins* (an hour ago)."""
    private = key or ec.generate_private_key(ec.SECP256R1())
    start = begins or datetime.now(UTC).replace(microsecond=0) - HOUR
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(private, hashes.SHA256())
    )
    return KeyPair.parse(leaf.public_bytes(serialization.Encoding.PEM), pem(private))


def pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    """A private key in PEM, encrypted if there is a *password*."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
