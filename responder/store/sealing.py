"""
Private keys as they are in the database: encrypted with a key that is made from the key file. The file is kept apart
from the database, so that a copy of the database does not give the private keys away.

A sealed text names the key file that it was sealed with, because several nodes may have different ones by mistake.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from binascii import Error as NotBase64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from responder.errors import Invalid

PREFIX = "sealed:"
"""Begins each sealed text; no PEM begins so."""

NONCE_OCTETS = 12
"""Of AES-GCM (NIST SP 800-38D, section 8.2). Random ones: some keys a year are sealed with one key file."""

NAME_OCTETS = 8
"""What names the key file: enough that no two of them have the same name."""


class Sealer:
    """Encrypts and decrypts texts with a key made from *master*, the content of the key file."""

    def __init__(self, master: bytes) -> None:
        self._cipher = AESGCM(hmac.digest(master, b"sealing: key", "sha256"))
        self._prefix = f"{PREFIX}{hmac.digest(master, b'sealing: name', 'sha256')[:NAME_OCTETS].hex()}:"

    def seal(self, text: str, purpose: str) -> str:
        """*text*, encrypted. It can be opened again for the same *purpose* only: one row cannot stand for another."""
        nonce = secrets.token_bytes(NONCE_OCTETS)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), purpose.encode())
        return self._prefix + base64.b64encode(sealed).decode()

    def can_open(self, sealed: str) -> bool:
        """Whether it was sealed with the same key file."""
        return sealed.startswith(self._prefix)

    def open(self, sealed: str, purpose: str) -> str:
        """What was sealed for that *purpose*. Raises `Invalid` if it is damaged, or was sealed for another one."""
        try:
            octets = base64.b64decode(sealed.removeprefix(self._prefix), validate=True)
            nonce, encrypted = octets[:NONCE_OCTETS], octets[NONCE_OCTETS:]
            return self._cipher.decrypt(nonce, encrypted, purpose.encode()).decode()
        except (NotBase64, ValueError, InvalidTag):
            raise Invalid("a private key in the database is damaged: restore the database from a backup") from None


def is_sealed(text: str) -> bool:
    """Whether it is encrypted, with any key file."""
    return text.startswith(PREFIX)
