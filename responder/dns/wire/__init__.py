"""
Messages: octets are parsed to a `Query`, and an `Answer` is rendered to octets (RFC 1035, 6891).

Only this package knows header bits, EDNS and truncation; it knows no zones, sockets or clients. `edns` uses `header`,
`query` uses both, and `reply` uses all three.
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
