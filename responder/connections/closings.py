"""
Connections that a listener refuses or closes of its own accord: counted, and logged once in a while.

Ends that a client chose, and connections that were merely idle for too long, are not among them.
"""

from __future__ import annotations

from enum import Enum

import structlog

from responder import metrics
from responder.logs import Seldom

INTERVAL = 60.0
"""Seconds between two log lines about one reason: who causes it does so a thousand times."""

_log = structlog.get_logger("connections")


class Reason(Enum):
    """Why a connection was closed, as the metrics name it."""

    REFUSED = "refused"
    EVICTED = "evicted"
    HANDSHAKE = "handshake"
    NO_REQUEST = "no-request"
    UNREAD = "unread"


_TEXTS = {
    Reason.REFUSED: "a connection was refused: all places are taken by requests that are being answered",
    Reason.EVICTED: "a connection that waited for its client was closed to make room for another one",
    Reason.UNREAD: "a connection was closed because its client does not read the answer",
}
"""What is logged. Port scanners leave handshakes and requests unfinished all day long: those are only counted."""


class Closings:
    """Those of the listener that the metrics call *name*."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seldom = Seldom(INTERVAL)

    def note(self, reason: Reason, client: str, connections: int | None = None) -> None:
        """Count one, of *client*; *connections* is how many that has, if they are the reason."""
        metrics.CONNECTIONS_CLOSED.labels(self._name, reason.value).inc()
        text = _TEXTS.get(reason)
        if text is None or (more := self._seldom.due(reason.value)) is None:
            return
        held = {} if connections is None else {"connections": connections}
        _log.warning(text, listener=self._name, client=client, **held, more=more)

    def report_exhausted(self, fault: OSError) -> None:
        """Log that the system has no resources for another connection."""
        if (more := self._seldom.due("exhausted")) is not None:
            _log.error("cannot accept connections for now", listener=self._name, reason=fault.strerror, more=more)
