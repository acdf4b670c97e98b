"""
Encrypts the private keys in the database, with a key that is derived from the key file. The file is kept outside the
database, so a copy of the database does not reveal the private keys.

A sealed text contains an identifier of its key file, because several nodes may have different files by mistake.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from binascii import Error as NotBase64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from responder.errors import Invalid

SEALED_PREFIX = "sealed:"
"""The beginning of each sealed text; PEM never begins like this."""

NONCE_OCTETS = 12
"""The nonce of AES-GCM (NIST SP 800-38D, section 8.2). It is random: one key file seals only a few keys a year."""

NAME_OCTETS = 8
"""The identifier of the key file: long enough that two files do not have the same."""


class Sealer:
    """Encrypts and decrypts texts with a key derived from *master*, the content of the key file."""

    def __init__(self, master: bytes) -> None:
        self._cipher = AESGCM(hmac.digest(master, b"sealing: key", "sha256"))
        self._prefix = f"{SEALED_PREFIX}{hmac.digest(master, b'sealing: name', 'sha256')[:NAME_OCTETS].hex()}:"

    def seal(self, text: str, purpose: str) -> str:
        """Return *text* encrypted. It can be opened only for the same *purpose*, so one row cannot replace another."""
        nonce = secrets.token_bytes(NONCE_OCTETS)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), purpose.encode())
        return self._prefix + base64.b64encode(sealed).decode()

    def can_open(self, sealed: str) -> bool:
        """Return whether *sealed* was sealed with the same key file."""
        return sealed.startswith(self._prefix)

    def open(self, sealed: str, purpose: str) -> str:
        """Return the text in *sealed*. Raises `Invalid` if it is damaged, or was sealed for another *purpose*."""
        try:
            octets = base64.b64decode(sealed.removeprefix(self._prefix), validate=True)
            nonce, encrypted = octets[:NONCE_OCTETS], octets[NONCE_OCTETS:]
            return self._cipher.decrypt(nonce, encrypted, purpose.encode()).decode()
        except (NotBase64, ValueError, InvalidTag):
            raise Invalid("a private key in the database is damaged: restore the database from a backup") from None


def is_sealed(text: str) -> bool:
    """Return whether *text* is encrypted, with any key file."""
    return text.startswith(SEALED_PREFIX)
