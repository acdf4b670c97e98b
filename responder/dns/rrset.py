"""
The resource record set: one owner, one type, one TTL, and rdata in wire form (RFC 2181, section 5).

No text here: `zonetext` reads and prints records, `wire` puts them into messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from responder.names import Name

CLASS_IN = 1
CLASS_CH = 3
CLASS_NONE = 254
CLASS_ANY = 255


class RRType(IntEnum):
    """The types that the server treats in a special way. All others are only numbers to it (RFC 3597)."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    DNAME = 39
    OPT = 41
    DS = 43
    DNSKEY = 48
    SVCB = 64
    HTTPS = 65
    NXNAME = 128
    TKEY = 249
    TSIG = 250
    IXFR = 251
    AXFR = 252
    MAILB = 253
    MAILA = 254
    ANY = 255
    CAA = 257


MAX_RRSET = 56 << 10
"""The most octets of a static RRset in a reply (see `RRset.octets`). TCP can carry 64 KiB. The rest is for the
question, CNAMEs in front of the RRset, challenge values at the same name, EDNS options, and a signature."""

_RECORD_OCTETS = 12
"""Octets of a record without its data: a pointer to its owner, type, class, TTL and length."""


@dataclass(frozen=True, slots=True)
class RRset:
    """Records of one owner and type. *ttl* is in seconds; *rdatas* are in wire form, without compressed names."""

    owner: Name
    type: int
    ttl: int
    rdatas: tuple[bytes, ...]

    @property
    def octets(self) -> int:
        """The most octets that the RRset can have in a reply."""
        return sum(_RECORD_OCTETS + len(rdata) for rdata in self.rdatas)


def txt_rdata(value: str) -> bytes:
    """The rdata of a TXT record, cut into character-strings of 255 octets (RFC 1035, section 3.3.14)."""
    octets = value.encode("ascii")
    chunks = [octets[at : at + 255] for at in range(0, len(octets), 255)] or [b""]
    return b"".join(bytes((len(chunk),)) + chunk for chunk in chunks)
