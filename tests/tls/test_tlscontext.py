"""What the TLS of the API and of the webhook share; `test_tls` and `test_webhook` replace certificates in use."""

from __future__ import annotations

import ssl

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from responder.tls import tlscontext
from tests.support.keypairs import key_pair


def test_encrypted_key() -> None:
    """A key with a passphrase is refused; nobody is asked for it at the terminal."""
    pair = key_pair("api.acme.example.com")
    key = load_pem_private_key(pair.key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )

    with pytest.raises(ssl.SSLError):
        tlscontext.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair.chain + key)


def test_reasons() -> None:
    """What OpenSSL or the system calls a fault, without the line of Python's source where it came up."""
    one, other = key_pair("one.example.com"), key_pair("other.example.com")
    with pytest.raises(ssl.SSLError) as fault:
        tlscontext.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), one.chain + other.key)

    assert "key values mismatch" == tlscontext.reason(fault.value)
    assert "Permission denied" == tlscontext.reason(PermissionError(13, "Permission denied"))
    assert "TimeoutError" == tlscontext.reason(TimeoutError())
