"""
TLS with the front proxy: our serving certificate and its client certificate. Both can be replaced at run time.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from responder.errors import CannotStart, InvalidConfiguration
from responder.logs import Outage, Seldom
from responder.tls import tlscontext

FAILURE_INTERVAL = 60.0
"""Seconds between two log lines about handshakes that fail for the same reason."""

_log = structlog.get_logger("webhook")
_failures = Seldom(FAILURE_INTERVAL)


class Handshake:
    """The `context` for listeners, whose certificate and trusted CAs can be replaced."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """The serving certificate, with its chain, and its key, as PEM files. Raises `CannotStart`."""
        self._paths = key, certificate
        self._ca = ""
        self._outage = Outage(
            _log,
            "cannot use the new serving certificate: the old one stays in use",
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
        """The context for the listeners."""
        return self._contexts.context

    def trust(self, ca: str) -> bool:
        """
        Accept client certificates of the CAs in *ca* (PEM) from now on. Returns whether an old CA is no longer trusted.

        Raises `InvalidConfiguration` if *ca* cannot be used, and then changes nothing.
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
        """Read the files of the serving certificate again. If they cannot be used, the old certificate stays in use."""
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
    """One TLS connection. It logs a failed handshake, which nothing else reports."""

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
    """A context with the key and certificate in *pem* that trusts *ca*. Raises `OSError`, as `ssl` does."""
    context = _new_context()
    tlscontext.load(context, pem)
    if ca:
        context.load_verify_locations(cadata=ca)
    return context


def _new_context() -> ssl.SSLContext:
    """
    A context that verifies client certificates, but does not require them: the kubelet's probes have none.

    As in Go, any certificate of a bundle is a trust anchor, even an intermediate one. TLS 1.3 without tickets has no
    sessions: a session that a removed CA authenticated could otherwise be resumed.
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
