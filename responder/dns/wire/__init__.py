"""
Messages: bytes to `Query`, `Answer` to bytes. The only home of header bits, EDNS and truncation (RFC 1035, 6891).

Nothing here knows zones, sockets or clients. `header`, `edns`, `query` and `reply` stand on each other in this order.
"""

from responder.dns.wire.edns import (
    NO_EDNS,
    UDP_CEILING,
    Edns,
    ExtendedError,
    cookie,
    extend_opt,
    extended_error,
    keepalive,
    nsid,
    option,
)
from responder.dns.wire.header import HEADER, RD, Opcode, Rcode, header_only
from responder.dns.wire.query import MAX_SIGNED, Query, parse
from responder.dns.wire.reply import TCP_CEILING, Answer, Transport, compile_answer, cut, refusal, refuse, render

__all__ = [
    "HEADER",
    "MAX_SIGNED",
    "NO_EDNS",
    "RD",
    "TCP_CEILING",
    "UDP_CEILING",
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
    "refusal",
    "refuse",
    "render",
]
