"""
TLS contexts for a server whose certificate is replaced while it runs. The caller makes the contexts, and decides which
versions of TLS and which certificates they accept.

A context in use cannot be changed in one step: for a moment it would have parts of the old and of the new certificate.
So a listener keeps one outer context, and each handshake continues in the inner context that is the newest then.
"""

from __future__ import annotations

import os
import ssl


class Replaceable:
    """The *context* of a listener. Handshakes continue in the *newest* context, which may be replaced at any time."""

    def __init__(self, context: ssl.SSLContext, newest: ssl.SSLContext) -> None:
        self.context = context
        self.newest = newest
        context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """Called by OpenSSL in each handshake, also if the client names no server."""
        connection.context = self.newest


def load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load the certificate, chain and key in *pem* into *context*. Raises `OSError`."""
    with os.fdopen(os.memfd_create("certificate"), "wb") as file:  # OpenSSL reads them only from files
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=_no_password)


def reason(fault: OSError) -> str:
    """The reason of *fault*, always the same text for one reason. Python's text has a line of its source code."""
    if isinstance(fault, ssl.SSLError):
        return str(fault.reason or "malformed").replace("_", " ").lower()
    return fault.strerror or type(fault).__name__


def _no_password() -> str:
    """Without this, OpenSSL would ask for a password at the terminal."""
    return ""
