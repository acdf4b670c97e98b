"""
The secret of a token: how it is made, its digest for the store, and the TSIG key that is derived for DNS updates.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import NewType

Secret = NewType("Secret", str)
"""The text of a token, as its holder knows it: shown once, never stored, never logged."""


Digest = NewType("Digest", bytes)
"""SHA-256 of a secret: what is stored and looked up."""


SECRET_PREFIX = "rsp_"  # noqa: S105  # it begins every secret
"""The beginning of every secret, so that secret scanners can find leaks."""


SECRET_BYTES = 32
"""256 bits of entropy cannot be guessed, so a fast digest is enough; a slow one would let clients use up the CPU."""


def tsig_secret(master: bytes, key_name: str) -> bytes:
    """The 32 octets of the key *key_name*. They are derived from *master*, which is not in the database."""
    return hmac.digest(master, b"tsig:" + key_name.encode(), "sha256")


def mint_secret() -> Secret:
    """A new secret from the operating system's random source."""
    return Secret(SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES))


def digest(secret: str) -> Digest:
    """
    The digest of a secret, which the store keeps.

    The time that the look-up of a digest takes may reveal something about the SHA-256 of a guess, but this does not
    help to guess 256 bits. After the look-up, the store compares the digests with `secrets.compare_digest`.
    """
    return Digest(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest())
