"""
TLS contexts of a server whose certificate is replaced while it serves. Which versions are spoken, and whose
certificates are trusted, is for who makes the contexts.

A context that is in use cannot be given another certificate or another trust without a moment in which it has half of
each. So a listener holds an outer one for good, and each handshake goes on in whatever inner one is the newest.
"""

from __future__ import annotations

import os
import ssl


class Replaceable:
    """The *context* for a listener; handshakes go on in the *newest*, which may be set at any time."""

    def __init__(self, context: ssl.SSLContext, newest: ssl.SSLContext) -> None:
        self.context = context
        self.newest = newest
        context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """Called in each handshake, whether its client names a server or not."""
        connection.context = self.newest


def load(context: ssl.SSLContext, pem: bytes) -> None:
    """Let *context* show the certificate in *pem*, which has its chain and its key, too. Raises `OSError`."""
    with os.fdopen(os.memfd_create("certificate"), "wb") as file:  # OpenSSL takes them from files only
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=_no_password)


def reason(fault: OSError) -> str:
    """The same words for the same fault; Python's own name a line of its source code."""
    if isinstance(fault, ssl.SSLError):
        return str(fault.reason or "malformed").replace("_", " ").lower()
    return fault.strerror or type(fault).__name__


def _no_password() -> str:
    """Without this, OpenSSL asks at the terminal."""
    return ""
