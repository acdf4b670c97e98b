"""Whose certificates the webhook takes as a client: by the rules of Go, as everything else in a cluster does."""

from __future__ import annotations

import ssl


def client_context(pem: str | None) -> ssl.SSLContext:
    """
    Trust the certificates in *pem* and no others; the system's if it is None. Raises `ssl.SSLError`.

    Any of them is an anchor, be it an intermediate one or a server's own. And none is refused for want of an extension
    that RFC 5280 demands and private CAs forget, which Python does since 3.13.
    """
    context = ssl.create_default_context(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
