"""The TLS of the API: which versions and ciphers, and a certificate that can be replaced while it serves."""

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
"""For TLS 1.2: forward secrecy and authenticated encryption. TLS 1.3 has no others."""


LOOK_INTERVAL = 10.0
"""Seconds between looks whether clients accept the certificate."""

_log = structlog.get_logger("certificate")


class ServerTls:
    """
    What a listener needs to speak TLS. `use` gives it another certificate than the *pair* of our own making that it
    begins with: handshakes from then on show that one, and connections that stand are not disturbed.
    """

    def __init__(self, pair: KeyPair, hostname: Name | None = None) -> None:
        """Clients connect to *hostname*, if that is known. Raises `Invalid`, as `use` does."""
        self._contexts = tlscontext.Replaceable(_context(), _context())
        self._made = pair
        self._hostname = hostname
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
        kind = "self-signed" if is_self_signed(pair.leaf) else "issued"
        metrics.CERTIFICATE.labels(kind).set(pair.not_after.timestamp())

    def refusal(self, *, now: datetime) -> str:
        """Why clients refuse the certificate that is shown, as far as that can be known here; "" if they do not."""
        if self.pair is self._made:
            return "it is self-signed, because there is no other one yet"
        return refusal(self.pair.leaf, self._hostname, now=now)

    async def watch(self, clock: Callable[[], datetime]) -> None:
        """Log it for as long as clients refuse the certificate, until cancelled."""
        outage = Outage(_log, "clients refuse the API's certificate", "clients accept the API's certificate again")
        while True:
            if refused := self.refusal(now=clock()):
                outage.goes_on(refused, not_after=self.pair.not_after.isoformat())
            else:
                outage.is_over()
            await asyncio.sleep(LOOK_INTERVAL)


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
