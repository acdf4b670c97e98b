"""
The key of an ACME account in the file formats of ACME clients: PEM (lego, cert-manager, acme.sh, dehydrated, Caddy) or
a JWK (certbot's `private_key.json`). Nothing here connects to a CA.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from josepy.errors import Error
from josepy.json_util import encode_b64jose
from josepy.jwk import JWK, JWKEC, JWKRSA

from responder.errors import Invalid
from responder.files import namedfile

MAX_KEY_FILE = 16 << 10
"""Octets of a key file: an RSA key of 16384 bits is shorter, and larger keys are not in use."""

Key = JWKRSA | JWKEC

# What cryptography and josepy raise for an invalid key; josepy does not check for missing members of a JWK, or for
# their types.
_FAULTS = (Error, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError)


def thumbprint(path: Path) -> str:
    """
    The JWK thumbprint (RFC 7638; SHA-256, base64url) of the account key in the file at *path*.

    The file may hold the private key or just the public one, in PEM or as a JWK. Raises `Invalid`.
    """
    return encode_b64jose(read(path).thumbprint())


def read(path: Path) -> Key:
    """The RSA or EC key in the file at *path*, private or public. Raises `Invalid`, with what the file has instead."""
    content = namedfile.read(path, MAX_KEY_FILE, pipes=True)
    try:
        return parse(content)
    except Invalid as fault:
        raise Invalid(f"{path}: {fault}") from None


def parse(content: bytes) -> Key:
    """The RSA or EC key in a file's *content*, private or public. Raises `Invalid`."""
    try:
        key = _from_jwk(content) if content.lstrip().startswith(b"{") else _from_pem(content)
        key.thumbprint()  # josepy accepts keys on curves that have no name in a JWK
    except _FAULTS:
        raise Invalid("the key in it is damaged, or neither RSA nor EC on a NIST curve") from None
    return key


def is_private(key: Key) -> bool:
    """Whether the key can sign."""
    return hasattr(key.key, "private_numbers")


def _from_jwk(content: bytes) -> Key:
    try:
        members: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise Invalid("it looks like JSON, but is not: name the file of the account key") from None
    if "kty" not in members:
        raise Invalid("it is JSON, but not a JWK: the file of certbot is named private_key.json")
    key = JWK.from_json(members)
    if not isinstance(key, JWKRSA | JWKEC):
        raise Invalid("it is a JWK, but neither RSA nor EC: name the file of the account key")
    return key


def _from_pem(content: bytes) -> Key:
    if b" PUBLIC KEY-----" in content:
        key: Any = serialization.load_pem_public_key(content)
    elif b" PRIVATE KEY-----" in content:
        try:
            key = serialization.load_pem_private_key(content, None)
        except TypeError:  # cryptography raises this if a password is missing
            raise Invalid(
                "the key is encrypted: write it without passphrase to a file that only you can read"
            ) from None
    elif b"-----BEGIN " in content:
        raise Invalid("it is PEM, but holds no key: name the file of the account key")
    else:
        raise Invalid("it holds no key in PEM and no JWK: name the file of the account key")
    for kind in (JWKRSA, JWKEC):
        if isinstance(key, kind.cryptography_key_types):
            return kind(key=key)
    raise Invalid("the key is neither RSA nor EC: other kinds are not supported")
