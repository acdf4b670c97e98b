"""
The secret of a token: how it is made, what the store keeps of it, and the key of DNS updates that follows from it.
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


PREFIX = "rsp_"
"""Starts every secret, so that secret scanners can find leaks."""


SECRET_BYTES = 32
"""256 bits of entropy: beyond guessing, so a fast digest is enough (a slow one is a lever for CPU floods)."""


def tsig_secret(master: bytes, key_name: str) -> bytes:
    """The 32 octets of that key, made from the server's own *master*: the database alone does not give them away."""
    return hmac.digest(master, b"tsig:" + key_name.encode(), "sha256")


def mint_secret() -> Secret:
    """A new secret from the operating system's random source."""
    return Secret(PREFIX + secrets.token_urlsafe(SECRET_BYTES))


def digest(secret: str) -> Digest:
    """
    What the store keeps of a secret.

    Looking a digest up in an index leaks, by its timing, at most something about SHA-256 of a guess, which helps
    nobody to guess 256 bits; the comparison that decides is `secrets.compare_digest`, where the store finds a row.
    """
    return Digest(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest())
