"""
Checks the signatures of packets that nameservers pass on, rejects bad ones, and signs the replies.

This module needs only the keys, so that replies are signed even while the database is unavailable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from responder import metrics
from responder.dns.exchange import SIGNATURE
from responder.dns.wire import ExtendedError, Opcode, Query, Rcode, extended_error, parse, refuse
from responder.feed import Deliver, Packet, fail
from responder.logs import Seldom
from responder.update.tsig import KeyName, Keyring, Signature, SignatureError

SELDOM_INTERVAL = 10.0
"""Seconds between two log lines of one kind about frequent events, such as invalid signatures."""

_MALFORMED = extended_error(ExtendedError.OTHER, "the TSIG record is malformed")

_log = structlog.get_logger("update")


@dataclass(frozen=True, slots=True)
class Request:
    """An update with a valid signature, and the key of the signature."""

    packet: Packet
    query: Query
    signature: Signature
    key_name: KeyName


@dataclass(frozen=True, slots=True)
class Result:
    """The result of an update: the *rcode* of its reply, and the *reason* if it was not carried out."""

    rcode: Rcode
    reason: str = ""

    @property
    def why(self) -> bytes:
        """The extended error for the reply (RFC 8914)."""
        return extended_error(_ERRORS.get(self.rcode, ExtendedError.OTHER), self.reason) if self.reason else b""


_ERRORS = {
    Rcode.REFUSED: ExtendedError.PROHIBITED,
    Rcode.NOTAUTH: ExtendedError.NOT_AUTHORITATIVE,
    Rcode.SERVFAIL: ExtendedError.NOT_READY,
}

DONE = Result(Rcode.NOERROR)

UNAVAILABLE = Result(Rcode.SERVFAIL, "no update can be carried out at the moment: try again later")
"""The result after a fault of the service. The log has the reason; the token of the client may be revoked."""


class Signatures:
    """Checks and makes signatures with the keys of *keyring*."""

    def __init__(self, keyring: Keyring, *, clock: Callable[[], datetime]) -> None:
        self._keyring = keyring
        self._clock = clock
        self._seldom = Seldom(SELDOM_INTERVAL)

    def receive(self, packet: Packet, deliver: Deliver, accept: Callable[[Request, Deliver], None]) -> None:
        """Reply to *packet* with *deliver*, or have *accept* do it if *packet* is a valid update. Never raises."""
        try:
            self._receive(packet, deliver, accept)
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self.report(fault)
            fail(packet, deliver)

    def decline(self, packet: Packet, deliver: Deliver) -> None:
        """Reply to *packet* while no update can be carried out: an update gets SERVFAIL. Never raises."""
        self.receive(packet, deliver, lambda request, deliver: deliver(self.reply(request, UNAVAILABLE)))

    def reply(self, request: Request, result: Result) -> bytes:
        """The signed reply to *request*, with the *result* and no records."""
        return self._sign(request.query, request.signature, result)

    def reject(self, packet: Packet, query: Query, signature: Signature, deliver: Deliver) -> None:
        """Report the error of *signature* to the client (RFC 8945, section 5.2) and in the log."""
        error = signature.error
        metrics.REQUESTS.labels("UPDATE", error.name.lower()).inc()
        if (more := self._seldom.due(error.name)) is not None:
            token = str(signature.key_name.token_id) if signature.key_name is not None else None
            algorithm, client = str(signature.record.algorithm), packet.client
            _log.warning(
                "signature refused", error=error.name, token=token, algorithm=algorithm, client=client, more=more
            )
        deliver(self._sign(query, signature, Result(Rcode.NOTAUTH)))  # the reason is in the TSIG

    def report(self, fault: Exception) -> None:
        """Log an unhandled exception, once per interval."""
        if (more := self._seldom.due(type(fault).__name__)) is not None:
            _log.error("an update caused an unhandled exception", more=more, exc_info=fault)

    def _receive(self, packet: Packet, deliver: Deliver, accept: Callable[[Request, Deliver], None]) -> None:
        query = parse(packet.octets)
        if not isinstance(query, Query) or not query.tsig:
            raise ValueError("a nameserver passed on a packet without a signature")
        signature = self._keyring.check(packet.octets, query.tsig, self._now())
        if signature is None:
            deliver(refuse(query, Rcode.FORMERR, _MALFORMED))
        elif signature.error is not SignatureError.NONE or signature.key_name is None:
            self.reject(packet, query, signature, deliver)
        elif query.opcode == Opcode.UPDATE and query.edns.version:
            deliver(self._sign(query, signature, Result(Rcode.BADVERS)))
        elif query.opcode == Opcode.UPDATE and query.edns.fault:
            deliver(self._sign(query, signature, Result(Rcode.FORMERR, query.edns.fault)))
        elif query.opcode == Opcode.UPDATE:
            accept(Request(packet, query, signature, signature.key_name), deliver)
        else:
            deliver(signature.sign(packet.draft, self._now()))

    def _sign(self, query: Query, signature: Signature, result: Result) -> bytes:
        """A reply with the zone section of *query* (RFC 2136, section 3.8), an OPT if *query* has one, and the TSIG."""
        return signature.sign(refuse(query, result.rcode, result.why, spare=SIGNATURE), self._now())

    def _now(self) -> int:
        return int(self._clock().timestamp())
