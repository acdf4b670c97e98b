"""
TLS as the front proxy needs it: our certificate, its client certificate; both sides change while connections stand.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from responder.errors import CannotStart, InvalidConfiguration
from responder.logs import Outage, Seldom
from responder.tls import tlscontext

FAILURE_INTERVAL = 60.0
"""Seconds between two reports of handshakes that fail for one reason: port scanners and a broken client are alike."""

_log = structlog.get_logger("webhook")
_failures = Seldom(FAILURE_INTERVAL)


class Handshake:
    """The `context` for listeners, and what may change about it."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """The serving certificate, with its chain, and its key, as PEM files. Raises `CannotStart`."""
        self._paths = key, certificate
        self._ca = ""
        self._outage = Outage(
            _log,
            "cannot use the new serving certificate: going on with the old one",
            "the files of the serving certificate can be used again",
        )
        outer = _new_context()
        outer.sslobject_class = _Peer
        try:
            self._pem = self._read()
            self._contexts = tlscontext.Replaceable(outer, _context(self._pem, self._ca))
        except OSError as fault:
            reason = f"cannot use the serving certificate {certificate} with the key {key}: {tlscontext.reason(fault)}"
            raise CannotStart(reason) from None

    @property
    def context(self) -> ssl.SSLContext:
        """For the listeners."""
        return self._contexts.context

    def trust(self, ca: str) -> bool:
        """
        Take client certificates from the CAs in *ca* (PEM) from now on. Returns whether some are trusted no longer.

        Raises `InvalidConfiguration`, and leaves everything as it was.
        """
        if ca == self._ca:
            return False
        try:
            context = _context(self._pem, ca)
        except OSError as fault:
            reason = tlscontext.reason(fault)
            raise InvalidConfiguration([f"cannot use the front proxy's CA certificates: {reason}"]) from None
        before, self._ca, self._contexts.newest = self._contexts.newest, ca, context
        _log.info("trusting a front proxy", authorities=[_subject(each) for each in context.get_ca_certs()])
        return not {*before.get_ca_certs(binary_form=True)} <= {*context.get_ca_certs(binary_form=True)}

    def reload(self) -> None:
        """Use the files for the serving certificate as they are now; while they are of no use, what they were."""
        try:
            pem = self._read()
            if pem != self._pem:
                self._contexts.newest = _context(pem, self._ca)
        except OSError as fault:  # perhaps only one of the two has been replaced so far
            self._outage.goes_on(tlscontext.reason(fault))
            return
        self._outage.is_over()
        if pem != self._pem:
            self._pem = pem
            _log.info("using a new serving certificate")

    def _read(self) -> bytes:
        return b"\n".join(path.read_bytes() for path in self._paths)


class _Peer(ssl.SSLObject):
    """One connection. Nobody but the log ever hears of a handshake that failed, so it is told there."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as fault:
            if (unreported := _failures.due(_reason(fault))) is not None:
                _log.warning("a TLS handshake failed", reason=_reason(fault), more=unreported)
            raise


def _context(pem: bytes, ca: str) -> ssl.SSLContext:
    """With our key and certificate in *pem*, and trust in *ca*. Raises `OSError`, as everything of `ssl` does."""
    context = _new_context()
    tlscontext.load(context, pem)
    if ca:
        context.load_verify_locations(cadata=ca)
    return context


def _new_context() -> ssl.SSLContext:
    """
    Client certificates are looked at, but not demanded: the kubelet's probes have none.

    Go takes any certificate of a bundle for an anchor, an intermediate one too. And a session must not be resumed
    that was authenticated by a CA that is trusted no longer: TLS 1.3 without tickets has no sessions.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _reason(fault: ssl.SSLError) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"the client's certificate is not the front proxy's: {fault.verify_message}"
    return tlscontext.reason(fault)


def _subject(certificate: object) -> str:
    names = certificate["subject"] if isinstance(certificate, dict) else ()
    return ", ".join(f"{key}={value}" for rdn in names for key, value in rdn)
