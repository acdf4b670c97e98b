"""
Signed packets, as nameservers pass them on: those whose signature does not hold are rejected, and replies are signed.

It needs the keys and nothing else, so that replies are signed while there is no database, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from responder import metrics
from responder.dns.wire import Opcode, Query, Rcode, header_only, parse
from responder.feed import Deliver, Packet, fail
from responder.logs import Seldom
from responder.update.tsig import Error, KeyName, Keyring, Signature

SELDOM_INTERVAL = 10.0
"""Seconds between two log lines of one kind about what may come in floods: signatures that do not hold, for one."""

_log = structlog.get_logger("update")


@dataclass(frozen=True, slots=True)
class Request:
    """An update whose signature holds, and the key that it was made with."""

    packet: Packet
    query: Query
    signature: Signature
    key_name: KeyName


class Signatures:
    """Checks and signs, with the keys of *keyring*."""

    def __init__(self, keyring: Keyring, *, clock: Callable[[], datetime]) -> None:
        self._keyring = keyring
        self._clock = clock
        self._seldom = Seldom(SELDOM_INTERVAL)

    def answer(self, packet: Packet, deliver: Deliver, accept: Callable[[Request, Deliver], None]) -> None:
        """Answer *packet* by *deliver*, or have *accept* do that if it is an update. Never raises."""
        try:
            self._answer(packet, deliver, accept)
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self.report(fault)
            fail(packet, deliver)

    def decline(self, packet: Packet, deliver: Deliver) -> None:
        """Answer *packet* while no update can be carried out: with SERVFAIL if it is one. Never raises."""
        self.answer(packet, deliver, lambda request, deliver: deliver(self.reply(request, Rcode.SERVFAIL)))

    def reply(self, request: Request, rcode: Rcode) -> bytes:
        """The signed reply to *request* that has nothing but *rcode*."""
        return self._sign(request.packet, request.query, request.signature, rcode)

    def reject(self, packet: Packet, query: Query, signature: Signature, deliver: Deliver) -> None:
        """Report what is wrong with the *signature*, to its sender (RFC 8945, section 5.2) and in the log."""
        error = signature.error
        metrics.REQUESTS.labels("UPDATE", error.name.lower()).inc()
        if (more := self._seldom.due(error.name)) is not None:
            token = str(signature.key_name.token_id) if signature.key_name is not None else None
            algorithm, client = str(signature.record.algorithm), packet.client
            _log.warning(
                "signature refused", error=error.name, token=token, algorithm=algorithm, client=client, more=more
            )
        deliver(self._sign(packet, query, signature, Rcode.NOTAUTH))

    def report(self, fault: Exception) -> None:
        """Log a fault of ours, once in a while."""
        if (more := self._seldom.due(type(fault).__name__)) is not None:
            _log.error("an update caused an unhandled exception", more=more, exc_info=fault)

    def _answer(self, packet: Packet, deliver: Deliver, accept: Callable[[Request, Deliver], None]) -> None:
        query = parse(packet.octets)
        if not isinstance(query, Query) or not query.tsig:
            raise ValueError("a nameserver passed on what is not signed")
        signature = self._keyring.check(packet.octets, query.tsig, self._now())
        if signature is None:
            deliver(header_only(packet.octets, Rcode.FORMERR))
        elif signature.error is not Error.NONE or signature.key_name is None:
            self.reject(packet, query, signature, deliver)
        elif query.opcode == Opcode.UPDATE:
            accept(Request(packet, query, signature, signature.key_name), deliver)
        else:
            deliver(signature.sign(packet.draft, self._now()))

    def _sign(self, packet: Packet, query: Query, signature: Signature, rcode: Rcode) -> bytes:
        """A reply of one rcode: its header, the zone section as it came (RFC 2136, section 3.8), the TSIG."""
        head = header_only(packet.octets, rcode)
        return signature.sign(head[:4] + b"\0\1" + head[6:] + query.question, self._now())

    def _now(self) -> int:
        return int(self._clock().timestamp())
