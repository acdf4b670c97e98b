"""
Writes the corpus: one file for each kind of packet that is treated in a way of its own, the first octet in front.

    python -m tests.fuzz.seeds
"""

from __future__ import annotations

import struct
from pathlib import Path

from responder.names import Name
from tests.fuzz.respond import CLIENTS, COOKIES, MANY
from tests.support.zones import APEX, challenge

CORPUS = Path(__file__).parent / "corpus"

TSIG = b"\3key\0" + struct.pack("!HHIH", 250, 255, 0, 17) + b"\3alg\0" + bytes(6) + b"\0\0" + bytes(4)
UDP, TCP, UDP6 = b"\0", b"\1", b"\2"
IN, CH = 1, 3
BIG, LEAF, LOOP, AWAY, LOST, EVERY = (
    Name.parse(f"{label}.acme.example.com").wire for label in ("big", "leaf.ent", "loop", "away", "lost", "every")
)


def seeds() -> dict[str, bytes]:
    """The corpus by file name."""
    two = challenge("two").wire
    cookie = option(10, b"8octets.")
    return {
        "soa": UDP + query(APEX.wire, 6),
        "soa-tcp": TCP + query(APEX.wire, 6),
        "ns-glue": UDP + query(APEX.wire, 2),
        "txt": UDP + query(two, 16),
        "txt-rd-ad-cd": UDP + query(two, 16, flags=0x0130),
        "txt-mixed-case": UDP + query(two.swapcase(), 16),
        "txt-partly-mixed-case": UDP + query(two.removesuffix(APEX.wire).upper() + APEX.wire, 16),
        "txt-opt": UDP + query(two, 16, opt()),
        "txt-opt-6": UDP6 + query(two, 16, opt()),
        "txt-do": UDP + query(two, 16, opt(flags=0x8000)),
        "nodata": UDP + query(challenge("none").wire, 16),
        "nodata-type": UDP + query(two, 257, opt()),
        "empty-non-terminal": UDP + query(LEAF[5:], 1),
        "nxdomain": UDP + query(b"\4nope" + APEX.wire, 1),
        "nxdomain-opt": UDP + query(b"\4nope" + APEX.wire, 65, opt()),
        "nxdomain-longest": UDP + query(longest(), 16),
        "zero-in-label": UDP + query(b"\5ac\0me" + APEX.wire, 16),
        "any": UDP + query(APEX.wire, 255, opt(size=4096)),
        "cname-loop": UDP + query(LOOP, 1),
        "cname-away": UDP + query(AWAY, 1),
        "cname-lost": UDP + query(LOST, 28, opt()),
        "big": UDP + query(BIG, 16),
        "big-1232": UDP + query(BIG, 16, opt(size=1232)),
        "big-tcp": TCP + query(BIG, 16, opt(size=512)),
        "many-512": UDP + query(MANY.wire, 16, opt(size=512)),
        "many-1232": UDP + query(MANY.wire, 16, opt()),
        "outside": UDP + query(b"\3org\0", 1, opt()),
        "root": UDP + query(b"\0", 2),
        "axfr": TCP + query(APEX.wire, 252),
        "ixfr": TCP + query(APEX.wire, 251, APEX.wire + struct.pack("!HHIH", 6, IN, 0, 0), counts=(1, 0, 1, 0)),
        "ixfr-opt": TCP + query(APEX.wire, 251, opt()),
        "nxname": UDP + query(APEX.wire, 128, opt()),
        "maila": UDP + query(APEX.wire, 254),
        "tlsa": UDP + query(EVERY, 52),
        "ptr-opt": TCP + query(EVERY, 12, opt()),
        "private-use": UDP + query(EVERY, 65_280),
        "last-type": UDP + query(EVERY, 65_535, opt()),
        "any-of-every": UDP + query(EVERY, 255),
        "chaos-version": UDP + query(Name.parse("version.bind").wire, 16, rclass=CH),
        "chaos-id": UDP + query(Name.parse("id.server").wire, 16, opt(), rclass=CH),
        "class-any": UDP + query(APEX.wire, 6, rclass=255),
        "notify": UDP + query(APEX.wire, 6, flags=0x2400),
        "update": UDP + query(APEX.wire, 6, flags=0x2800),
        "update-signed": UDP + query(APEX.wire, 6, TSIG, flags=0x2800),
        "update-elsewhere": TCP + query(b"\3org\0", 6, TSIG, flags=0x2800),
        "update-big": TCP + query(APEX.wire, 6, (b"\xc0\x0c" + TSIG[5:]) * 8 + TSIG, flags=0x2800, counts=(1, 2, 4, 3)),
        "signed": UDP + query(two, 16, TSIG),
        "signed-opt": TCP + query(MANY.wire, 16, opt(size=512) + TSIG, counts=(1, 0, 0, 2)),
        "opcode-15": UDP + struct.pack("!HHHHHH", 1, 0x7800, 0, 0, 0, 0),
        "response": UDP + query(APEX.wire, 6, flags=0x8400),
        "badvers": UDP + query(APEX.wire, 6, opt(version=1)),
        "nsid": UDP + query(APEX.wire, 6, opt(option(3, b""))),
        "keepalive": TCP + query(APEX.wire, 6, opt(option(11, b""))),
        "cookie": UDP + query(two, 16, opt(cookie)),
        "cookie-6": UDP6 + query(two, 16, opt(cookie)),
        "cookie-ours": UDP + query(two, 16, opt(option(10, OURS))),
        "cookie-only": UDP + struct.pack("!HHHHHH", 1, 0x0100, 0, 0, 0, 1) + opt(cookie),
        "cookie-short": UDP + query(two, 16, opt(option(10, b"7octets"))),
        "options": UDP + query(two, 16, opt(option(3, b"") + cookie + option(11, b"") + option(8, b"\0\1\0\0"))),
        "two-opts": UDP + query(two, 16, opt() + opt(), counts=(1, 0, 0, 2)),
        "two-questions": UDP + query(two, 16, APEX.wire + b"\0\6\0\1", counts=(2, 0, 0, 0)),
        "pointer": UDP + query(b"\1a\xc0\x0c", 16),
        "trailer": UDP + query(two, 16, opt() + b"trailer", counts=(1, 0, 0, 1)),
    }


OURS = b"8octets." + COOKIES.grant(b"8octets.", CLIENTS[0])
"""A client's cookie, and ours for it: that client is not limited."""


def query(
    qname: bytes,
    rrtype: int,
    rest: bytes = b"",
    *,
    flags: int = 0,
    rclass: int = IN,
    counts: tuple[int, int, int, int] | None = None,
) -> bytes:
    """A message with one question, and *rest* behind it: an OPT, unless *counts* says otherwise."""
    header = struct.pack("!HHHHHH", 0x1234, flags, *(counts or (1, 0, 0, bool(rest))))
    return header + qname + struct.pack("!HH", rrtype, rclass) + rest


def opt(options: bytes = b"", *, size: int = 1232, version: int = 0, flags: int = 0) -> bytes:
    """An OPT record."""
    return b"\0" + struct.pack("!HHBBHH", 41, size, 0, version, flags, len(options)) + options


def option(code: int, data: bytes) -> bytes:
    """One EDNS option."""
    return struct.pack("!HH", code, len(data)) + data


def longest() -> bytes:
    """A name of 255 octets in the zone."""
    room = 255 - len(APEX.wire) - 3 * 64
    return (b"\x3f" + b"x" * 63) * 3 + bytes((room - 1,)) + b"y" * (room - 1) + APEX.wire


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for name, data in seeds().items():
        (CORPUS / name).write_bytes(data)
