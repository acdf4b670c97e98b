"""TLS of the API: its versions and ciphers, and a certificate that can be replaced while the API is running."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog
from aiohttp import web

from responder import metrics
from responder.errors import Invalid
from responder.logs import Outage
from responder.names import Name
from responder.tls import tlscontext
from responder.tls.keypair import KeyPair, is_self_signed, refusal

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers for TLS 1.2: those with forward secrecy and authenticated encryption. All ciphers of TLS 1.3 have both."""


CERTIFICATE_INTERVAL = 10.0
"""Seconds between two checks whether clients accept the certificate."""

_log = structlog.get_logger("certificate")


class ServerTls:
    """
    The TLS context of a listener. It begins with the self-signed *pair*. `use` replaces the certificate for later
    handshakes; existing connections are not affected.
    """

    def __init__(self, pair: KeyPair, hostname: Name | None = None) -> None:
        """*hostname* is the name that clients connect to, if it is known. Raises `Invalid`, as `use` does."""
        self._contexts = tlscontext.Replaceable(_context(), _context())
        self._made = pair
        self._hostname = hostname
        self.use(pair)

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the listener."""
        return self._contexts.context

    def use(self, pair: KeyPair) -> None:
        """Use the certificate of *pair* from now on. Raises `Invalid`, and keeps the old one, if TLS cannot use it."""
        # A new context, because a context keeps an older certificate that has another kind of key.
        context = _context()
        try:
            tlscontext.load(context, pair.chain + b"\n" + pair.key)
        except ssl.SSLError as fault:
            raise Invalid(f"TLS cannot use the certificate: {tlscontext.reason(fault)}") from None
        self._contexts.newest = context
        self.pair = pair
        metrics.CERTIFICATE.clear()
        kind = "self-signed" if is_self_signed(pair.leaf) else "issued"
        metrics.CERTIFICATE.labels(kind).set(pair.not_after.timestamp())

    def refusal(self, *, now: datetime) -> str:
        """Why clients reject the current certificate, as far as this service can know; "" if they accept it."""
        if self.pair is self._made:
            return "it is self-signed, because no certificate has been issued yet"
        return refusal(self.pair.leaf, self._hostname, now=now)

    async def watch(self, clock: Callable[[], datetime]) -> None:
        """Until cancelled, log while clients reject the certificate."""
        outage = Outage(_log, "clients reject the API's certificate", "clients accept the API's certificate again")
        while True:
            if refused := self.refusal(now=clock()):
                outage.goes_on(refused, not_after=self.pair.not_after.isoformat())
            else:
                outage.is_over()
            await asyncio.sleep(CERTIFICATE_INTERVAL)


def require_https(seconds: int) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A handler for `on_response_prepare` that has clients use only HTTPS for *seconds* (RFC 6797)."""

    async def add_header(request: web.Request, response: web.StreamResponse) -> None:
        if request.secure:  # never over plain HTTP (RFC 6797, section 7.2)
            response.headers["Strict-Transport-Security"] = f"max-age={seconds}"

    return add_header


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION  # renegotiation lets a client use much CPU time
    context.set_alpn_protocols(["http/1.1"])
    return context
