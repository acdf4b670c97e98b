"""
Messages: bytes to `Query`, `Answer` to bytes. The only home of header bits, EDNS and truncation (RFC 1035, 6891).

Nothing here knows zones, sockets or clients.
"""

from responder.wire.edns import (
    MAX_OPTIONS,
    NO_EDNS,
    UDP_CEILING,
    UDP_FLOOR,
    Edns,
    ExtendedError,
    cookie,
    extend_opt,
    extended_error,
    keepalive,
    nsid,
    option,
)
from responder.wire.header import AA, HEADER, QR, RD, TC, Opcode, Rcode, header_only
from responder.wire.query import MAX_SIGNED, Query, parse
from responder.wire.reply import TCP_CEILING, Answer, Transport, compile_answer, cut, render

__all__ = [
    "AA",
    "HEADER",
    "MAX_OPTIONS",
    "MAX_SIGNED",
    "NO_EDNS",
    "QR",
    "RD",
    "TC",
    "TCP_CEILING",
    "UDP_CEILING",
    "UDP_FLOOR",
    "Answer",
    "Edns",
    "ExtendedError",
    "Opcode",
    "Query",
    "Rcode",
    "Transport",
    "compile_answer",
    "cookie",
    "cut",
    "extend_opt",
    "extended_error",
    "header_only",
    "keepalive",
    "nsid",
    "option",
    "parse",
    "render",
]
