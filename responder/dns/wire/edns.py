"""
EDNS: what a query's OPT record asks for, and the OPT of the reply (RFC 6891).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from responder.dns.rrset import RRType
from responder.dns.wire.header import RECORD, Rcode

UDP_CEILING = 1232
"""Octets of the largest UDP reply we send: fits the smallest IPv6 MTU, so never a fragment (RFC 9715)."""

UDP_FLOOR = 512
"""Octets every client takes; smaller EDNS sizes count as this (RFC 6891, section 6.2.3)."""

MAX_OPTIONS = 64
"""EDNS options read in one query. There are not that many to send, but 64 KiB would hold 16,000."""

DO = 0x8000


class ExtendedError(IntEnum):
    """RFC 8914, section 4; those that this server sends."""

    PROHIBITED = 18
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    INVALID_QUERY_TYPE = 30


@dataclass(frozen=True, slots=True)
class Edns:
    """
    What a query's OPT record asks of its reply.

    *limit* is the octets that the client takes over UDP, held between our floor and ceiling; *opt* is the OPT that
    goes into a reply without options, empty if the query had none (RFC 6891, section 6.1.1).
    """

    opt: bytes
    limit: int
    version: int = 0
    do: bool = False
    nsid: bool = False
    cookie: bytes = b""
    keepalive: bool = False
    verified: bool = False
    """Whether the client proved, with a cookie that we gave it, that it is where it says (RFC 7873)."""


def parse_additional(packet: bytes, at: int, arcount: int) -> Edns | Rcode:
    """The OPT of a query, alone allowed in its additional section (RFC 6891, section 6.1.1); or the rcode it earns."""
    if arcount == 0:
        return NO_EDNS
    if packet[at : at + 1] != b"\0" or len(packet) < at + 1 + RECORD.size:
        return Rcode.FORMERR
    rrtype, size, ttl, length = RECORD.unpack_from(packet, at + 1)
    options = packet[at + 1 + RECORD.size : at + 1 + RECORD.size + length]
    if rrtype != RRType.OPT or arcount > 1 or len(options) != length:
        return Rcode.FORMERR
    limit = min(max(size, UDP_FLOOR), UDP_CEILING)
    version, do = ttl >> 16 & 0xFF, bool(ttl & DO)
    if version:  # options of a version unknown to us are not ours to read (RFC 6891, section 6.1.3)
        return Edns(_OPTS[do], limit, version, do)
    return _parse_options(options, Edns(_OPTS[do], limit, version, do))


def extend_opt(opt: bytes, options: bytes, *, extended_rcode: int = 0) -> bytes:
    """*opt* with more *options* and the upper bits of the rcode (RFC 6891, section 6.1.3)."""
    length = len(opt) - _OPT_FIXED + len(options)
    return opt[:5] + bytes((extended_rcode,)) + opt[6:9] + length.to_bytes(2, "big") + opt[_OPT_FIXED:] + options


def option(code: int, data: bytes) -> bytes:
    """One EDNS option (RFC 6891, section 6.1.2)."""
    return _CODE_LENGTH.pack(code, len(data)) + data


def nsid(identifier: bytes) -> bytes:
    """The option that tells which of several servers answered (RFC 5001)."""
    return option(_NSID, identifier)


def cookie(client_cookie: bytes, server_cookie: bytes) -> bytes:
    """The option that gives a client its cookie (RFC 7873, section 4)."""
    return option(_COOKIE, client_cookie + server_cookie)


def keepalive(seconds: float) -> bytes:
    """The option that tells how long we leave an idle TCP connection open (RFC 7828: in units of 100 ms)."""
    return option(_KEEPALIVE, int(seconds * 10).to_bytes(2, "big"))


def extended_error(code: ExtendedError) -> bytes:
    """The option that says why (RFC 8914). Without extra text, which could only leak."""
    return option(_EDE, int(code).to_bytes(2, "big"))


_CODE_LENGTH = struct.Struct("!HH")
_NSID, _COOKIE, _KEEPALIVE, _EDE = 3, 10, 11, 15

NO_EDNS = Edns(b"", UDP_FLOOR)

# Our OPT: version 0, DO as the client sent it (RFC 3225, section 3), every other flag clear.
_OPTS = tuple(b"\0" + RECORD.pack(RRType.OPT, UDP_CEILING, flags, 0) for flags in (0, DO))
_OPT_FIXED = len(_OPTS[0])


def _parse_options(options: bytes, edns: Edns) -> Edns | Rcode:
    """*edns* with what its options ask for. Unknown ones are ignored (RFC 6891, section 6.1.2)."""
    at, count, found = 0, 0, dict[int, bytes]()
    while at < len(options):
        count += 1
        if at + _CODE_LENGTH.size > len(options) or count > MAX_OPTIONS:
            return Rcode.FORMERR
        code, length = _CODE_LENGTH.unpack_from(options, at)
        at += _CODE_LENGTH.size + length
        if at > len(options):
            return Rcode.FORMERR
        found.setdefault(code, options[at - length : at])  # of several cookies the first (RFC 7873, section 5.2)
    client_cookie = found.get(_COOKIE, b"")
    if _COOKIE in found and len(client_cookie) != 8 and not 16 <= len(client_cookie) <= 40:  # RFC 7873, section 5.2.2
        return Rcode.FORMERR
    if not found:
        return edns
    return replace(edns, nsid=_NSID in found, cookie=client_cookie, keepalive=_KEEPALIVE in found)
