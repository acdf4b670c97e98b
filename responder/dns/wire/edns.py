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
"""Octets of the largest UDP reply we send: fits the smallest IPv6 MTU, so never a fragment (RFC 9715)."""

UDP_FLOOR = 512
"""Octets every client takes; smaller EDNS sizes count as this (RFC 6891, section 6.2.3)."""

MAX_OPTIONS = 1024
"""EDNS options read in one query, which takes 0.2 ms: no datagram that is read holds more, but 64 KiB over TCP would
hold 16,000. Those behind them count as unknown."""

MAX_REASON = 200
"""Octets of the text of an extended error: two lines, and what a reply has room for if it has EDNS."""

DO = 0x8000


class ExtendedError(IntEnum):
    """RFC 8914, section 4; those that this server sends."""

    OTHER = 0
    NOT_READY = 14
    PROHIBITED = 18
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    INVALID_QUERY_TYPE = 30


@dataclass(frozen=True, slots=True)
class Edns:
    """
    What a query's OPT record asks of its reply.

    *limit* is the octets that the client takes over UDP, held between our floor and ceiling; *opt* is the OPT that
    goes into a reply without options, empty if the query had none (RFC 6891, section 6.1.1), and *opt_of_nxdomain* the
    one that goes into an NXDOMAIN. *fault* is what makes the message malformed, if something does.
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
    """Whether the client proved, with a cookie that we gave it, that its address is not forged (RFC 7873)."""


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
    return edns if version else _parse_options(options, edns)  # others have no meaning known to us (section 6.1.3)


def extend_opt(opt: bytes, options: bytes, *, extended_rcode: int = 0) -> bytes:
    """*opt* with more *options* and the upper bits of the rcode (RFC 6891, section 6.1.3)."""
    length = len(opt) - _OPT_FIXED + len(options)
    return opt[:5] + bytes((extended_rcode,)) + opt[6:9] + length.to_bytes(2, "big") + opt[_OPT_FIXED:] + options


def option(code: int, data: bytes) -> bytes:
    """One EDNS option (RFC 6891, section 6.1.2)."""
    return _CODE_LENGTH.pack(code, len(data)) + data


def nsid(identifier: bytes) -> bytes:
    """The option that identifies the one of several servers that answered (RFC 5001)."""
    return option(_NSID, identifier)


def cookie(client_cookie: bytes, server_cookie: bytes) -> bytes:
    """The option that gives a client its cookie (RFC 7873, section 4)."""
    return option(_COOKIE, client_cookie + server_cookie)


def keepalive(seconds: float) -> bytes:
    """The option with the time for which we leave an idle TCP connection open (RFC 7828: in units of 100 ms)."""
    return option(_KEEPALIVE, int(seconds * 10).to_bytes(2, "big"))


def extended_error(code: ExtendedError, text: str = "") -> bytes:
    """The option with the reason (RFC 8914). *text* is for people, must give away nothing secret, and may be cut."""
    return option(_EDE, int(code).to_bytes(2, "big") + text.encode("ascii", "replace")[:MAX_REASON])


_CODE_LENGTH = struct.Struct("!HH")
_NSID, _COOKIE, _KEEPALIVE, _EDE = 3, 10, 11, 15

NO_EDNS = Edns(b"", UDP_FLOOR)

OPT_HEAD = b"\0" + int(RRType.OPT).to_bytes(2, "big")
"""What an OPT record begins with: the root as its owner, and its type."""

# Our OPT: version 0, DO as the client sent it (RFC 3225, section 3), every other flag clear.
_OPTS = tuple(b"\0" + RECORD.pack(RRType.OPT, UDP_CEILING, flags, 0) for flags in (0, DO))
_OPT_FIXED = len(_OPTS[0])


def _parse_options(options: bytes, edns: Edns) -> Edns:
    """*edns* with what its options ask for. Unknown ones are ignored (RFC 6891, section 6.1.2)."""
    at, found = 0, dict[int, bytes]()
    for _ in range(MAX_OPTIONS):
        if at == len(options):
            break
        code, length = _CODE_LENGTH.unpack_from(options, at) if at + _CODE_LENGTH.size <= len(options) else (0, 0xFFFF)
        at += _CODE_LENGTH.size + length
        if at > len(options):
            return replace(edns, fault="an EDNS option is cut short")
        found.setdefault(code, options[at - length : at])  # of several cookies the first (RFC 7873, section 5.2)
    client_cookie = found.get(_COOKIE, b"")
    if _COOKIE in found and len(client_cookie) != 8 and not 16 <= len(client_cookie) <= 40:  # RFC 7873, section 5.2.2
        return replace(edns, fault="a DNS cookie must have 8 or 16 to 40 octets")
    if not found:
        return edns
    return replace(edns, nsid=_NSID in found, cookie=client_cookie, keepalive=_KEEPALIVE in found)
