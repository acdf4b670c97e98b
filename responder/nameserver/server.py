"""
Answers packets by `exchange`. If one packet causes an exception, no other packet is affected.

Nothing is awaited between a packet and its reply.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field

import structlog

from responder.dns.cookies import Cookies
from responder.dns.exchange import SIGNATURE, Elsewhere, Exchange
from responder.dns.wire import HEADER, TCP_CEILING, Rcode, Transport, header_only
from responder.dns.zone import Zones
from responder.feed import Deliver, Packet, Relay
from responder.logs import Seldom
from responder.nameserver.tcp import Connections

FAULT_INTERVAL = 10.0
"""Seconds between two log lines about exceptions of one type: a client that causes one can repeat it."""

MAX_DRAFT = TCP_CEILING - SIGNATURE
"""Octets of the longest reply that can still be signed."""

_OLDEST = len(gc.get_threshold()) - 1
"""The generation that is only collected together with all others."""

_log = structlog.get_logger("nameserver")


@dataclass(slots=True)
class Nameserver:
    """The exchange that answers, and what contains its exceptions."""

    exchange: Exchange = field(default_factory=Exchange)
    relay: Relay = field(default_factory=Relay)
    connections: Connections = field(default_factory=Connections)
    _vouched_until: float | None = None
    _faults: Seldom = field(default_factory=lambda: Seldom(FAULT_INTERVAL))

    def install(self, zones: Zones) -> None:
        """Answer from *zones*, beginning with the next packet."""
        self.exchange.serve(zones)

    def rekey(self, keys: tuple[bytes, ...]) -> None:
        """Make and check cookies with *keys*. Without keys, do not send cookies."""
        self.exchange.cookies = Cookies(keys, time.time) if keys else None
        self.exchange.forget_cookies()

    def vouch(self, until: float) -> None:
        """Answer for values and grants *until* that instant of the monotonic clock. By default there is no limit."""
        self._vouched_until = until
        self.exchange.doubt(is_doubtful=time.monotonic() >= until)

    def reply(self, packet: bytes, transport: Transport, client: str) -> bytes | Elsewhere | None:
        """Never raises: a packet that causes an exception gets SERVFAIL, and no other packet is affected."""
        # Checked here and not by a timer: a process that was stopped for a while answers before its timers run.
        if self._vouched_until is not None and time.monotonic() >= self._vouched_until:
            self.exchange.doubt(is_doubtful=True)
        try:
            return self.exchange.respond(packet, transport, client)
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self._report(fault, packet)
            is_query = len(packet) >= HEADER and not packet[2] & 0x80
            return self._fail(packet) if is_query else None

    def pass_on(self, packet: bytes, transport: Transport, client: str, deliver: Deliver) -> None:
        """Have the control process answer *packet*, for which `reply` was `ELSEWHERE`. Never raises either."""
        try:
            draft = self.exchange.draft(packet, transport, client)
            if len(draft.octets) <= MAX_DRAFT:

                def count_and_deliver(reply: bytes) -> None:
                    self.exchange.count(reply, draft)
                    deliver(reply)

                self.relay.pass_on(Packet(packet, transport, client, draft.octets), count_and_deliver)
                return
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self._report(fault, packet)
        deliver(self._fail(packet))

    def _fail(self, packet: bytes) -> bytes:
        reply = header_only(packet, Rcode.SERVFAIL)
        self.exchange.count(reply)
        return reply

    def _report(self, fault: Exception, packet: bytes) -> None:
        if (unreported := self._faults.due(type(fault).__name__)) is not None:
            _log.error(
                "unhandled exception while answering a packet",
                packet=packet[:512].hex(),
                more=unreported,
                exc_info=fault,
            )


def keep_collections_short() -> None:
    """
    Have the garbage collector visit every object once and never again: reference counts free the objects later.

    Tables and answers live as long as the process. Visiting 300,000 answers takes 0.1 s, in which no query is answered.
    """

    def spare(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == _OLDEST:
            gc.freeze()

    gc.callbacks.append(spare)
