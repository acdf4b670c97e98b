"""
The header of a message: its bits, its codes, and replies that have only a header (RFC 1035, section 4.1.1).
"""

from __future__ import annotations

import struct
from enum import IntEnum

HEADER = 12
"""Octets of the header. The name of the question starts after it (RFC 1035, section 4.1.1)."""

QR, AA, TC, RD = 0x8000, 0x0400, 0x0200, 0x0100
OPCODE = 0x7800

HEAD = struct.Struct("!HHHHH")
"""The header after the id: flags, and the number of records in each of the four sections."""

RECORD = struct.Struct("!HHIH")
"""A record after its owner: type, class, TTL, length of the data (RFC 1035, section 4.1.3)."""


class Opcode(IntEnum):
    """The opcodes that are treated differently (RFC 6895, section 2.2)."""

    QUERY = 0
    NOTIFY = 4
    UPDATE = 5


class Rcode(IntEnum):
    """The rcodes that this server sends (RFC 6895, section 2.3)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    YXDOMAIN = 6
    YXRRSET = 7
    NXRRSET = 8
    NOTAUTH = 9
    NOTZONE = 10
    BADVERS = 16


def header_only(packet: bytes, rcode: Rcode) -> bytes:
    """A reply of twelve octets to a message that is not read further. NSD and BIND send the same."""
    flags = int.from_bytes(packet[2:4], "big")
    kept = flags & (OPCODE if flags & OPCODE else RD)  # other opcodes may give the remaining bits other meanings
    return packet[:2] + HEAD.pack(QR | kept | rcode, 0, 0, 0, 0)
