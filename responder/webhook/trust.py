"""Which certificates the webhook trusts as a client: the rules are those of Go, as for other programs in a cluster."""

from __future__ import annotations

import ssl


def client_context(pem: str | None) -> ssl.SSLContext:
    """
    A context that trusts only the certificates in *pem*, or those of the system if it is None. Raises `ssl.SSLError`.

    Each of them is a trust anchor, even an intermediate one or a server's own. Certificates without an extension that
    RFC 5280 requires are accepted, because private CAs often omit it; Python 3.13 rejects them by default.
    """
    context = ssl.create_default_context(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
