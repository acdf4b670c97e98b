"""
EDNS: what a query's OPT record asks for, and the OPT of the reply (RFC 6891).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from responder.dns.rrset import RRType
from responder.dns.wire.header import RECORD

UDP_CEILING = 1232
"""Octets of the longest UDP reply. It fits into the smallest IPv6 MTU, so it is never fragmented (RFC 9715)."""

UDP_FLOOR = 512
"""Octets that every client accepts. Smaller EDNS sizes count as this one (RFC 6891, section 6.2.3)."""

MAX_OPTIONS = 1024
"""EDNS options that are read in one query, in 0.2 ms. A datagram cannot hold more; a message of 64 KiB over TCP could
hold 16,000. Further options are ignored."""

MAX_REASON = 200
"""Octets in the text of an extended error: two lines, which fit into every reply with EDNS."""

DO = 0x8000


class ExtendedError(IntEnum):
    """The extended errors that this server sends (RFC 8914, section 4)."""

    OTHER = 0
    NOT_READY = 14
    PROHIBITED = 18
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    INVALID_QUERY_TYPE = 30


@dataclass(frozen=True, slots=True)
class Edns:
    """
    What the OPT record of a query asks for.

    *limit* is the number of octets that the client accepts over UDP, between `UDP_FLOOR` and `UDP_CEILING`. *opt* is
    the OPT record of the reply; it is empty if the query has none (RFC 6891, section 6.1.1). *opt_of_nxdomain* is the
    one of an NXDOMAIN. *fault* is the reason why the message is malformed, or empty.
    """

    opt: bytes
    limit: int
    opt_of_nxdomain: bytes = b""
    fault: str = ""
    version: int = 0
    do: bool = False
    nsid: bool = False
    cookie: bytes = b""
    keepalive: bool = False
    verified: bool = False
    """Whether the client proved with a DNS cookie of this server that its address is not forged (RFC 7873)."""


def parse_opt(packet: bytes, at: int) -> Edns:
    """The OPT record that begins at octet *at* (RFC 6891, section 6.1.2)."""
    if len(packet) < at + 1 + RECORD.size or not packet.startswith(OPT_HEAD, at):
        return replace(NO_EDNS, fault="the OPT record is cut short")
    _, size, ttl, length = RECORD.unpack_from(packet, at + 1)
    options = packet[at + 1 + RECORD.size : at + 1 + RECORD.size + length]
    version, do = ttl >> 16 & 0xFF, bool(ttl & DO)
    edns = Edns(_OPTS[do], min(max(size, UDP_FLOOR), UDP_CEILING), version=version, do=do)
    if len(options) != length:
        return replace(edns, fault="the OPT record is cut short")
    return edns if version else _parse_options(options, edns)  # other versions are unknown (section 6.1.3)


def extend_opt(opt: bytes, options: bytes, *, extended_rcode: int = 0) -> bytes:
    """*opt* with more *options* and the upper bits of the rcode (RFC 6891, section 6.1.3)."""
    length = len(opt) - _OPT_FIXED + len(options)
    return opt[:5] + bytes((extended_rcode,)) + opt[6:9] + length.to_bytes(2, "big") + opt[_OPT_FIXED:] + options


def option(code: int, data: bytes) -> bytes:
    """One EDNS option (RFC 6891, section 6.1.2)."""
    return _CODE_LENGTH.pack(code, len(data)) + data


def nsid(identifier: bytes) -> bytes:
    """The option that identifies this server among several (RFC 5001)."""
    return option(_NSID, identifier)


def cookie(client_cookie: bytes, server_cookie: bytes) -> bytes:
    """The option that gives a client its cookie (RFC 7873, section 4)."""
    return option(_COOKIE, client_cookie + server_cookie)


def keepalive(seconds: float) -> bytes:
    """The option with the time for which an idle TCP connection stays open (RFC 7828: in units of 100 ms)."""
    return option(_KEEPALIVE, int(seconds * 10).to_bytes(2, "big"))


def extended_error(code: ExtendedError, text: str = "") -> bytes:
    """The option with the reason (RFC 8914). *text* is for people, must give away nothing secret, and may be cut."""
    return option(_EDE, int(code).to_bytes(2, "big") + text.encode("ascii", "replace")[:MAX_REASON])


_CODE_LENGTH = struct.Struct("!HH")
_NSID, _COOKIE, _KEEPALIVE, _EDE = 3, 10, 11, 15

NO_EDNS = Edns(b"", UDP_FLOOR)

OPT_HEAD = b"\0" + int(RRType.OPT).to_bytes(2, "big")
"""The first octets of an OPT record: the root as its owner, and its type."""

# The OPT of a reply: version 0, DO as the client sent it (RFC 3225, section 3), all other flags clear.
_OPTS = tuple(b"\0" + RECORD.pack(RRType.OPT, UDP_CEILING, flags, 0) for flags in (0, DO))
_OPT_FIXED = len(_OPTS[0])


def _parse_options(options: bytes, edns: Edns) -> Edns:
    """*edns* with its *options*. Unknown options are ignored (RFC 6891, section 6.1.2)."""
    at, found = 0, dict[int, bytes]()
    for _ in range(MAX_OPTIONS):
        if at == len(options):
            break
        code, length = _CODE_LENGTH.unpack_from(options, at) if at + _CODE_LENGTH.size <= len(options) else (0, 0xFFFF)
        at += _CODE_LENGTH.size + length
        if at > len(options):
            return replace(edns, fault="an EDNS option is cut short")
        found.setdefault(code, options[at - length : at])  # the first of several (RFC 7873, section 5.2)
    client_cookie = found.get(_COOKIE, b"")
    if _COOKIE in found and len(client_cookie) != 8 and not 16 <= len(client_cookie) <= 40:  # RFC 7873, section 5.2.2
        return replace(edns, fault="a DNS cookie must have 8 or 16 to 40 octets")
    if not found:
        return edns
    return replace(edns, nsid=_NSID in found, cookie=client_cookie, keepalive=_KEEPALIVE in found)
