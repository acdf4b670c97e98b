"""
The header of a message: its bits, its codes, and replies that are nothing else (RFC 1035, section 4.1.1).
"""

from __future__ import annotations

import struct
from enum import IntEnum

HEADER = 12
"""Octets of the header; the question's name starts right behind it (RFC 1035, section 4.1.1)."""

QR, AA, TC, RD = 0x8000, 0x0400, 0x0200, 0x0100
OPCODE = 0x7800

HEAD = struct.Struct("!HHHHH")
"""What follows the id: flags, and the number of records in each of four sections."""

RECORD = struct.Struct("!HHIH")
"""What follows a record's owner: type, class, TTL, length (RFC 1035, section 4.1.3)."""


class Opcode(IntEnum):
    """RFC 6895, section 2.2; those that are treated differently."""

    QUERY = 0
    NOTIFY = 4
    UPDATE = 5


class Rcode(IntEnum):
    """RFC 6895, section 2.3; those that this server sends."""

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
    """Twelve octets for a message that cannot or will not be read further, as NSD and BIND answer it."""
    flags = int.from_bytes(packet[2:4], "big")
    kept = flags & (OPCODE if flags & OPCODE else RD)  # other opcodes may give the remaining bits other meanings
    return packet[:2] + HEAD.pack(QR | kept | rcode, 0, 0, 0, 0)
