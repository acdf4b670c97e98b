"""
DNS updates for tests: messages put together octet by octet as miekg/dns does it, which cert-manager and lego use, and
signed and verified with nothing but HMAC, so that no library judges its own work.
"""

from __future__ import annotations

import asyncio
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

import dns.rcode

from responder.config import ApiSettings
from responder.dns.wire import Transport
from responder.feed import Packet
from responder.limits import Limits
from responder.tokens.secret import tsig_secret
from responder.tokens.token import Token, tsig_key_name
from responder.update import Keyring, Signatures, Updates
from tests.support.processes import PATIENCE
from tests.support.service import APEX, Control

MASTER = bytes(range(32))
ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
CLIENT = "192.0.2.7"

IN, NONE, ANY = 1, 254, 255
A, SOA, TXT, TSIG, ANY_TYPE = 1, 6, 16, 250, 255
FUDGE = 300

_HASHES = {
    "hmac-sha256.": "sha256",
    "hmac-sha384.": "sha384",
    "hmac-sha512.": "sha512",
    "hmac-sha224.": "sha224",
    "hmac-sha1.": "sha1",
    "hmac-md5.sig-alg.reg.int.": "md5",
}


def name(text: str) -> bytes:
    """A name in wire form, uncompressed, in the letter case that it is written in."""
    labels = [label.encode() for label in text.rstrip(".").split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def record(owner: str, rrtype: int, rclass: int, ttl: int = 0, rdata: bytes = b"") -> bytes:
    return name(owner) + struct.pack("!HHIH", rrtype, rclass, ttl, len(rdata)) + rdata


def text(*strings: str) -> bytes:
    """The rdata of a TXT record."""
    return b"".join(bytes((len(string),)) + string.encode() for string in strings)


def add(owner: str, value: str, ttl: int = 60) -> bytes:
    return record(owner, TXT, IN, ttl, text(value))


def delete(owner: str, value: str) -> bytes:
    return record(owner, TXT, NONE, 0, text(value))


def delete_all(owner: str, rrtype: int = TXT) -> bytes:
    return record(owner, rrtype, ANY)


def message(
    *changes: bytes,
    zone: bytes | None = None,
    prerequisites: Iterable[bytes] = (),
    additional: Iterable[bytes] = (),
    ident: int = 0x1234,
) -> bytes:
    """An update without a signature."""
    before, behind = [*prerequisites], [*additional]
    head = struct.pack("!HHHHHH", ident, 5 << 11, 1, len(before), len(changes), len(behind))
    section = zone if zone is not None else name(str(APEX)) + struct.pack("!HH", SOA, IN)
    return head + section + b"".join([*before, *changes, *behind])


@dataclass(frozen=True)
class Key:
    """A key as its holder has it."""

    name: str
    secret: bytes
    algorithm: str = "hmac-sha256."

    def mac(self, unsigned: bytes, variables: bytes, request_mac: bytes = b"") -> bytes:
        """RFC 8945, section 4.3."""
        before = struct.pack("!H", len(request_mac)) + request_mac if request_mac else b""
        key = name(self.name.lower()) + struct.pack("!HI", ANY, 0) + name(self.algorithm)
        return hmac.digest(self.secret, before + unsigned + key + variables, _HASHES[self.algorithm])

    def sign(self, unsigned: bytes, now: int, *, fudge: int = FUDGE, size: int | None = None) -> bytes:
        """*unsigned* with a TSIG at its end, its MAC cut to *size* octets."""
        time = struct.pack("!HIH", now >> 32, now & 0xFFFFFFFF, fudge)
        mac = self.mac(unsigned, time + bytes(4))[:size]
        rdata = name(self.algorithm) + time + struct.pack("!H", len(mac)) + mac + unsigned[:2] + bytes(4)
        (count,) = struct.unpack_from("!H", unsigned, 10)
        return unsigned[:10] + struct.pack("!H", count + 1) + unsigned[12:] + record(self.name, TSIG, ANY, 0, rdata)


def mac_of(signed: bytes, key: Key) -> bytes:
    """The MAC of a message that *key* signed."""
    return tsig_of(signed, key).mac


@dataclass(frozen=True)
class Tsig:
    """The TSIG at the end of a message, taken apart."""

    start: int
    time: int
    fudge: int
    mac: bytes
    ident: int
    error: int
    other: bytes

    @property
    def variables(self) -> bytes:
        time = struct.pack("!HIH", self.time >> 32, self.time & 0xFFFFFFFF, self.fudge)
        return time + struct.pack("!HH", self.error, len(self.other)) + self.other


def tsig_of(signed: bytes, key: Key) -> Tsig:
    """The TSIG of *signed*, which must have one of that key's name, in its letter case, and be at the very end."""
    start = signed.rindex(name(key.name) + struct.pack("!HHI", TSIG, ANY, 0))
    at = start + len(name(key.name)) + 8
    (length,) = struct.unpack_from("!H", signed, at)
    assert at + 2 + length == len(signed)
    assert signed[at + 2 :].startswith(name(key.algorithm))
    at += 2 + len(name(key.algorithm))
    high, low, fudge, size = struct.unpack_from("!HIHH", signed, at)
    mac = signed[at + 10 : at + 10 + size]
    ident, error, other = struct.unpack_from("!HHH", signed, at + 10 + size)
    return Tsig(start, high << 32 | low, fudge, mac, ident, error, signed[at + 16 + size : at + 16 + size + other])


def unsigned_part(signed: bytes, tsig: Tsig) -> bytes:
    (count,) = struct.unpack_from("!H", signed, 10)
    return signed[:10] + struct.pack("!H", count - 1) + signed[12 : tsig.start]


def verify(reply: bytes, request: bytes, key: Key, now: int) -> Tsig:
    """The TSIG of a reply, as miekg/dns checks it: the MAC over the request's, the time within the fudge."""
    tsig = tsig_of(reply, key)
    assert key.mac(unsigned_part(reply, tsig), tsig.variables, mac_of(request, key)) == tsig.mac
    assert abs(tsig.time - now) <= tsig.fudge
    return tsig


@dataclass
class Desk:
    """The control process's answer to updates, without a nameserver in front of it."""

    running: Control
    algorithms: tuple[str, ...] = ALGORITHMS
    limits: Limits = field(default_factory=lambda: Limits(ApiSettings()))
    updates: Updates = field(init=False)
    _ident: int = 0

    def __post_init__(self) -> None:
        self.updates = Updates(
            self.running.store,
            self.running.challenges,
            Signatures(Keyring(MASTER, self.algorithms), clock=self.running.clock),
            self.limits,
            apexes=[APEX],
            clock=self.running.clock,
        )

    @property
    def now(self) -> int:
        return int(self.running.clock.now.timestamp())

    def start(
        self, packet: bytes, *, client: str = CLIENT, transport: Transport = Transport.UDP, draft: bytes = b""
    ) -> asyncio.Future[bytes]:
        """Hand in *packet*; what is returned becomes its reply."""
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.updates.receive(Packet(packet, transport, client, draft), reply.set_result)
        return reply

    async def ask(self, packet: bytes, *, client: str = CLIENT) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.start(packet, client=client)

    async def send(self, key: Key, *changes: bytes, client: str = CLIENT, prerequisites: Iterable[bytes] = ()) -> str:
        """Send an update as it should be. Returns the rcode of its reply, whose signature is good."""
        self._ident += 1
        request = key.sign(message(*changes, prerequisites=prerequisites, ident=self._ident), self.now)
        reply = await self.ask(request, client=client)
        assert 0 == verify(reply, request, key, self.now).error
        return rcode(reply)


def key_of(token: Token, algorithm: str = "hmac-sha256.") -> Key:
    """The key that `token mint --format tsig` gives to a token's holder."""
    return Key(tsig_key_name(token), tsig_secret(MASTER, tsig_key_name(token)), algorithm)


def rcode(reply: bytes) -> str:
    """The rcode in the header of a reply."""
    return dns.rcode.to_text(dns.rcode.Rcode(reply[3] & 0xF))
