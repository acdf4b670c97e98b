"""
Asking DNS questions of one server on the loopback address: once, or again and again as a resolver does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.ANY.TXT import TXT

from tests.support.processes import PATIENCE

TRIES = 3
"""How often a resolver asks before it gives up."""

_PAYLOAD = 1232
"""Octets of an answer that resolvers take over UDP nowadays."""

_TIMEOUT = 1.0
"""Seconds a resolver waits for the answer to one try."""


def ask(
    port: int, name: str, rdtype: str, *, patience: float = PATIENCE, host: str = "127.0.0.1"
) -> dns.message.Message:
    """
    One question with recursion desired, over UDP, or over TCP if the answer does not fit.

    Raises `dns.exception.Timeout` after *patience* seconds.
    """
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=_PAYLOAD)
    message, _ = dns.query.udp_with_fallback(query, host, timeout=patience, port=port)
    return message


def answers(port: int, name: str, rdtype: str, *, host: str = "127.0.0.1") -> bool:
    """Whether there is a server on the port, and it answers this question with at least one record."""
    try:
        return bool(ask(port, name, rdtype, patience=0.5, host=host).answer)
    except (dns.exception.Timeout, OSError):
        return False


def values(port: int, challenge_name: str) -> set[str]:
    """The challenge values that the server gives for the name."""
    return texts(ask(port, challenge_name, "TXT"))


def exists(port: int, name: str) -> bool:
    """Whether the name is there, with or without records."""
    return ask(port, name, "TXT").rcode() == dns.rcode.NOERROR


def texts(message: dns.message.Message) -> set[str]:
    """The text of every TXT record in the answer, its strings joined as a CA joins them."""
    return {
        b"".join(cast(TXT, rdata).strings).decode()
        for rrset in message.answer
        if rrset.rdtype == dns.rdatatype.TXT
        for rdata in rrset
    }


def serial(port: int, zone: str) -> int:
    """The serial of the zone, from its SOA record."""
    (rrset,) = ask(port, zone, "SOA").answer
    return cast(SOA, rrset[0]).serial


class Resolver(asyncio.DatagramProtocol):
    """
    A client that asks as a resolver does: one second for a try, three tries, each with an id of its own.

    Answers that come after their second are dropped, as the resolvers of CAs drop them.
    """

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, port: int) -> AsyncIterator[Resolver]:
        """A client of the server on the port, for as long as the block lasts."""
        loop = asyncio.get_running_loop()
        transport, resolver = await loop.create_datagram_endpoint(cls, remote_addr=("127.0.0.1", port))
        try:
            yield resolver
        finally:
            transport.close()

    async def texts(self, name: str) -> set[str] | None:
        """The TXT values at the name; None if every try went unanswered."""
        for _ in range(TRIES):
            query = dns.message.make_query(name, "TXT", use_edns=0, payload=_PAYLOAD, id=self._unused_id())
            if (packet := await self._try(query)) is not None:
                return texts(dns.message.from_wire(packet))
        return None

    async def _try(self, query: dns.message.Message) -> bytes | None:
        assert self._transport is not None
        answer = self._waiting[query.id] = asyncio.get_running_loop().create_future()
        self._transport.sendto(query.to_wire())
        try:
            return await asyncio.wait_for(answer, _TIMEOUT)
        except TimeoutError:
            return None
        finally:
            del self._waiting[query.id]

    def _unused_id(self) -> int:
        return next(number for number in iter(lambda: random.getrandbits(16), -1) if number not in self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        answer = self._waiting.get(int.from_bytes(data[:2], "big"))
        if answer is not None and not answer.done():
            answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """A refused packet is a lost one: the next try follows when its second is over."""
