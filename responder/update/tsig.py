"""
TSIG (RFC 8945): checks whether a message was signed with one of our keys, and signs its reply.

A key is derived from the name in the message, without a look-up, so that a forged message costs only two digests.
Callers check whether the token of a valid key may still be used. dnspython computes the digests.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest
from uuid import UUID

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tsig
from dns.rdtypes.ANY.TSIG import TSIG

from responder.names import name_end
from responder.tokens.secret import tsig_secret

MAX_FUDGE = 300
"""Seconds that the client's clock may differ, even if the message allows more (recommended in RFC 8945, section 10)."""

MIN_MAC = 10
"""Octets of the shortest valid MAC, or half of a full MAC if that is more (RFC 8945, section 5.2.2.1)."""


class SignatureError(IntEnum):
    """The TSIG error of a signature (RFC 8945, section 3)."""

    NONE = 0
    BADSIG = 16
    BADKEY = 17
    BADTIME = 18
    BADTRUNC = 22


@dataclass(frozen=True, slots=True)
class KeyName:
    """The token of a key, and which of its secrets the key belongs to (see `tokens.token.tsig_key_name`)."""

    token_id: UUID
    generation: int


@dataclass(frozen=True, slots=True)
class Signature:
    """The TSIG of a message, and its error. *owner* is its name as sent. A valid signature has all attributes."""

    error: SignatureError
    owner: bytes
    record: TSIG
    key_name: KeyName | None = None
    key: dns.tsig.Key | None = None

    def sign(self, reply: bytes, now: int) -> bytes:
        """*reply* with its TSIG, which has no MAC if the client has no valid key (section 5.3.2)."""
        time, error, other = now, self.error, b""
        if error is SignatureError.BADTIME:  # signed with the client's time, and with ours as other data (5.2.3)
            time, other = self.record.time_signed, now.to_bytes(6, "big")
        record = self.record.replace(
            time_signed=time, mac=b"", original_id=int.from_bytes(reply[:2], "big"), error=error, other=other
        )
        if self.key is not None and error is not SignatureError.BADSIG:
            record, _ = dns.tsig.sign(reply, self.key, record, time, self.record.mac)
        rdata = record.to_wire() or b""
        arcount = int.from_bytes(reply[10:12], "big") + 1
        fixed = _RECORD.pack(dns.rdatatype.TSIG, dns.rdataclass.ANY, 0, len(rdata))
        return reply[:10] + arcount.to_bytes(2, "big") + reply[12:] + self.owner + fixed + rdata


class Keyring:
    """All keys, which are derived from *master* and valid with these *algorithms*."""

    def __init__(self, master: bytes, algorithms: Iterable[str]) -> None:
        self._master = master
        self._algorithms = {_ALGORITHMS[algorithm] for algorithm in algorithms}

    def check(self, packet: bytes, at: int, now: int) -> Signature | None:
        """The signature of *packet*, whose TSIG begins at octet *at*; None if it is malformed. *now*: Unix seconds."""
        owner, record = _read(packet, at)
        if record is None:
            return None
        key_name = _parse_key_name(owner)
        if key_name is None or record.algorithm not in self._algorithms:
            return Signature(SignatureError.BADKEY, owner, record)
        key = dns.tsig.Key(
            dns.name.from_wire(owner, 0)[0], tsig_secret(self._master, owner[1:-1].lower().decode()), record.algorithm
        )
        whole = dns.tsig.mac_sizes[record.algorithm]
        if not max(MIN_MAC, whole // 2) <= len(record.mac) <= whole:
            return None
        signed = packet[:10] + (int.from_bytes(packet[10:12], "big") - 1).to_bytes(2, "big") + packet[12:at]
        expected, _ = dns.tsig.sign(signed, key, record, record.time_signed)
        error = SignatureError.NONE
        if not compare_digest(expected.mac[: len(record.mac)], record.mac):
            error = SignatureError.BADSIG
        elif abs(record.time_signed - now) > min(record.fudge, MAX_FUDGE):
            error = SignatureError.BADTIME
        elif len(record.mac) < whole:
            error = SignatureError.BADTRUNC
        return Signature(error, owner, record, key_name, key)


_RECORD = struct.Struct("!HHIH")

_ALGORITHMS = {
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
    "hmac-sha224": dns.tsig.HMAC_SHA224,
    "hmac-sha1": dns.tsig.HMAC_SHA1,
    "hmac-md5": dns.tsig.HMAC_MD5,
}

_KEY_NAME = re.compile(rb"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-([1-9][0-9]{0,8})")


def _read(packet: bytes, at: int) -> tuple[bytes, TSIG | None]:
    """The name of the TSIG at octet *at* in wire form, and the record, which is None if it is malformed."""
    start = at + name_end(packet[at:])
    *_, length = _RECORD.unpack_from(packet, start)
    try:
        record = dns.rdata.from_wire("ANY", "TSIG", packet, start + _RECORD.size, length)
    except (dns.exception.DNSException, ValueError):
        record = None
    return packet[at:start], record if isinstance(record, TSIG) else None


def _parse_key_name(owner: bytes) -> KeyName | None:
    """The key with the name *owner* (wire form, any letter case); None if it is not one of ours."""
    match = _KEY_NAME.fullmatch(owner[1:-1].lower()) if len(owner) == 2 + owner[0] else None
    return KeyName(UUID(match[1].decode()), int(match[2])) if match else None
