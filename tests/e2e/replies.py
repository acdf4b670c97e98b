"""
Asking a server a packet as it is, and its reply in a form in which the replies of two servers can be compared.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from .dns_client import TRIES
from .random_dns import RandomQuery

COOKIE, EXTENDED_ERROR = 10, 15
"""EDNS options (RFC 7873, RFC 8914)."""

_PATIENCE = 2.0
"""Seconds until a try is given up."""


class Record(NamedTuple):
    """
    A record as DNSSEC would sign it, names in lower case, because the case of a name that was compressed is chance.
    """

    owner: dns.name.Name
    ttl: int
    rdclass: int
    rdtype: int
    rdata: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """A reply as it is compared: everything but its id, the order of its records, and how its names are compressed."""

    rcode: str
    opcode: int
    flags: frozenset[str]
    question: bytes
    answer: frozenset[Record]
    authority: frozenset[Record]
    additional: frozenset[Record]
    edns: tuple[int, int, int] | None
    """Version, flags and size of the OPT record, if there is one."""
    options: frozenset[tuple[int, bytes]]
    """Of a cookie, the client's part, which is all that two servers with different secrets agree on, and the length."""
    size: int = field(compare=False)

    def without_records(self, rcode: str, *, error: int | None = None) -> Seen:
        """A reply that refuses the same query; with an extended error, if there is an OPT record for it."""
        options = {option for option in self.options if option[0] != EXTENDED_ERROR}
        if error is not None and self.edns:
            options.add((EXTENDED_ERROR, error.to_bytes(2, "big")))
        nothing: frozenset[Record] = frozenset()
        return replace(
            self,
            rcode=rcode,
            flags=self.flags & {"QR", "RD"},
            answer=nothing,
            authority=nothing,
            additional=nothing,
            options=frozenset(options),
        )


class Client:
    """Asks one server over UDP and, on one connection for as long as it lasts, over TCP."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self._udp.connect(("127.0.0.1", port))
        self._udp.settimeout(_PATIENCE)
        self._tcp: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._udp.close()
        self._hang_up()

    def ask(self, query: RandomQuery) -> Seen | None:
        """The reply; None if there is none, several times."""
        for _ in range(TRIES):
            try:
                return _read(self._over_tcp(query) if query.over_tcp else self._over_udp(query), query)
            except (TimeoutError, ConnectionError):
                self._hang_up()
        return None

    def _over_udp(self, query: RandomQuery) -> bytes:
        self._udp.send(query.packet)
        while (reply := self._udp.recv(65535))[:2] != query.packet[:2]:
            pass  # a late reply to an earlier query
        return reply

    def _over_tcp(self, query: RandomQuery) -> bytes:
        if self._tcp is None:
            self._tcp = socket.create_connection(("127.0.0.1", self._port), _PATIENCE)
        self._tcp.sendall(len(query.packet).to_bytes(2, "big") + query.packet)
        return _receive(self._tcp, int.from_bytes(_receive(self._tcp, 2), "big"))

    def _hang_up(self) -> None:
        if self._tcp is not None:
            self._tcp.close()
        self._tcp = None


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        if not (more := connection.recv(size - len(received))):
            raise ConnectionResetError
        received += more
    return received


def _read(reply: bytes, query: RandomQuery) -> Seen:
    """The reply as dnspython reads it."""
    message = dns.message.from_wire(reply, one_rr_per_rrset=True)
    sections = (message.answer, message.authority, message.additional)
    answer, authority, additional = (frozenset(map(_record, section)) for section in sections)
    options = ((int(option.otype), option.to_wire() or b"") for option in message.options)
    return Seen(
        rcode=dns.rcode.to_text(message.rcode()),
        opcode=int(message.opcode()),
        flags=frozenset(dns.flags.to_text(message.flags).split()),
        question=reply[12 : 12 + len(query.question)] if reply[4:6] != b"\0\0" else b"",
        answer=answer,
        authority=authority,
        additional=additional,
        edns=(message.edns, message.ednsflags & 0xFFFF, int(message.payload)) if message.edns >= 0 else None,
        options=frozenset((code, data[:8] + bytes((len(data),)) if code == COOKIE else data) for code, data in options),
        size=len(reply),
    )


def _record(rrset: dns.rrset.RRset) -> Record:
    owner = rrset.name.canonicalize()
    return Record(owner, rrset.ttl, int(rrset.rdclass), int(rrset.rdtype), rrset[0].to_digestable())
