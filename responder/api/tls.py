"""The TLS of the API: which versions and ciphers, and a certificate that can be replaced while it serves."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

from responder import metrics
from responder.errors import Invalid
from responder.tls import tlscontext
from responder.tls.keypair import KeyPair

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption. TLS 1.3 has no others."""


class ServerTls:
    """
    What a listener needs to speak TLS. `use` gives it another certificate: handshakes from then on show that one,
    and connections that stand are not disturbed.
    """

    def __init__(self, pair: KeyPair) -> None:
        """Raises `Invalid`, as `use` does."""
        self._contexts = tlscontext.Replaceable(_context(), _context())
        self.use(pair)

    @property
    def context(self) -> ssl.SSLContext:
        """For the listener."""
        return self._contexts.context

    def use(self, pair: KeyPair) -> None:
        """Show the certificate of *pair* from now on. Raises `Invalid`, and goes on as before, if TLS cannot use it."""
        # Loaded into a live context, a certificate would stand beside an older one with another kind of key.
        context = _context()
        try:
            tlscontext.load(context, pair.chain + b"\n" + pair.key)
        except ssl.SSLError as fault:
            raise Invalid(f"TLS cannot use the certificate: {tlscontext.reason(fault)}") from None
        self._contexts.newest = context
        self.pair = pair
        metrics.CERTIFICATE.clear()
        kind = "self-signed" if pair.leaf.issuer == pair.leaf.subject else "issued"
        metrics.CERTIFICATE.labels(kind).set(pair.not_after.timestamp())


def stay_on_https(seconds: int) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """For `on_response_prepare`: tells clients over TLS to use nothing else for so long (RFC 6797)."""

    async def tell(request: web.Request, response: web.StreamResponse) -> None:
        if request.secure:  # never over plain HTTP (RFC 6797, section 7.2)
            response.headers["Strict-Transport-Security"] = f"max-age={seconds}"

    return tell


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION  # a lever for CPU floods
    context.set_alpn_protocols(["http/1.1"])
    return context
