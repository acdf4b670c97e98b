"""
Connections that a listener refuses or closes: they are counted, and logged from time to time.

Connections that the client closed, and those that were only idle for too long, are not among them.
"""

from __future__ import annotations

from enum import Enum

import structlog

from responder import metrics
from responder.logs import Seldom

INTERVAL = 60.0
"""Seconds between two log lines with one reason: a client can cause it a thousand times."""

_log = structlog.get_logger("connections")


class Reason(Enum):
    """Why a connection was closed. The values are labels of the metrics."""

    REFUSED = "refused"
    EVICTED = "evicted"
    NOT_A_PROXY = "not-a-proxy"
    HEADER = "proxy-header"
    HANDSHAKE = "handshake"
    NO_REQUEST = "no-request"
    UNREAD = "unread"


_TEXTS = {
    Reason.REFUSED: "a connection was refused: all places are taken by requests that are being answered",
    Reason.EVICTED: "a connection that waited for its client was closed to make room for another one",
    Reason.NOT_A_PROXY: "a connection was refused: with api.proxy_protocol, only api.trusted_proxies may connect",
    Reason.HEADER: "a connection of a trusted proxy was closed: it did not begin with a header of the PROXY protocol",
    Reason.UNREAD: "a connection was closed because its client does not read the response",
}
"""The texts of the log. Unfinished handshakes and requests are only counted: port scanners cause many of them."""


class Closings:
    """The closed connections of the listener with that *name* in the metrics."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seldom = Seldom(INTERVAL)

    def note(self, reason: Reason, client: str, connections: int | None = None) -> None:
        """Count one connection of *client*. *connections* is the number that the client has, if that is the reason."""
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
