"""
Nameservers and a resolver on loopback addresses, all at one port, that say what a test wants them to say.

They know their records as zone text, and answer by the book; a test may bend what they answer. For what real servers
do, see the end-to-end tests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.support.ports import free_port

Bend = Callable[[dns.message.Message], dns.message.Message | bytes | None]
"""What becomes of a reply: another message, octets that are none, or nothing at all."""

Records = dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset]


def straight(reply: dns.message.Message) -> dns.message.Message:
    """As the book has it."""
    return reply


def silent(reply: dns.message.Message) -> None:
    """Nothing is said."""


def failing(rcode: dns.rcode.Rcode) -> Bend:
    """Nothing but the code is said."""

    def bend(reply: dns.message.Message) -> dns.message.Message:
        reply.set_rcode(rcode)
        reply.answer, reply.authority = [], []
        return reply

    return bend


def parse(text: str) -> Records:
    """Zone text with absolute names, one record a line, without TTLs."""
    records: Records = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        owner, rdtype, rdata = line.split(None, 2)
        rrset = dns.rrset.from_text(owner, 60, "IN", rdtype, rdata)
        records.setdefault((rrset.name, rrset.rdtype), rrset).add(rrset[0])
    return records


@dataclass(frozen=True)
class Server:
    """What answers at one address: as a resolver, which knows everything, or for the zones that it has the SOA of."""

    records: Records
    recursive: bool
    bend: Bend

    def respond(self, query: dns.message.Message) -> dns.message.Message | bytes | None:
        reply = dns.message.make_response(query, recursion_available=self.recursive)
        (question,) = query.question
        cut = None if self.recursive else self._cut(question.name, question.rdtype)
        if cut is not None:
            reply.authority.append(cut)
            reply.additional += self._glue(cut)
        elif self.recursive or self._holder(question.name):
            reply.flags |= dns.flags.Flag(0) if self.recursive else dns.flags.AA
            self._answer(reply, question.name, question.rdtype)
        else:
            reply.set_rcode(dns.rcode.REFUSED)
        return self.bend(reply)

    def _answer(self, reply: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> None:
        if rrset := self.records.get((name, rdtype)):
            reply.answer.append(rrset)
            return
        if alias := self.records.get((name, dns.rdatatype.CNAME)):
            reply.answer.append(alias)
            if self.recursive or self._holder(alias[0].target):
                self._answer(reply, alias[0].target, rdtype)
            return
        if not any(owner.is_subdomain(name) for owner, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        if soa := self._holder(name):
            reply.authority.append(soa)

    def _cut(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        """The delegation of a zone below ours that *name* is in; a DS is the parent's own."""
        below = name.parent() if rdtype == dns.rdatatype.DS else name
        found = (
            rrset
            for (owner, kind), rrset in self.records.items()
            if kind == dns.rdatatype.NS and below.is_subdomain(owner) and (owner, dns.rdatatype.SOA) not in self.records
        )
        return next(found, None)

    def _glue(self, cut: dns.rrset.RRset) -> list[dns.rrset.RRset]:
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        return [self.records[ns.target, kind] for ns in cut for kind in kinds if (ns.target, kind) in self.records]

    def _holder(self, name: dns.name.Name) -> dns.rrset.RRset | None:
        """The SOA of the zone that *name* is in."""
        apexes = [owner for owner, rdtype in self.records if rdtype == dns.rdatatype.SOA and name.is_subdomain(owner)]
        return self.records[max(apexes, key=len), dns.rdatatype.SOA] if apexes else None


@dataclass
class World:
    """The servers by their addresses. Where there is none, nobody listens."""

    port: int
    _stack: contextlib.AsyncExitStack

    async def add(self, address: str, text: str, *, recursive: bool = False, bend: Bend = straight) -> None:
        """Let a server answer at *address* over UDP and TCP."""
        server = Server(parse(text), recursive, bend)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(server), local_addr=(address, self.port))
        self._stack.callback(transport.close)
        listener = await asyncio.start_server(lambda r, w: _converse(server, r, w), address, self.port)
        self._stack.push_async_callback(listener.wait_closed)
        self._stack.callback(listener.close)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A world without servers, at a port that is free on the usual addresses."""
    async with contextlib.AsyncExitStack() as stack:
        yield World(free_port(), stack)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        assert self._transport is not None
        reply = self._server.respond(dns.message.from_wire(data))
        if reply is not None:
            self._transport.sendto(_wire(reply, 1232), addr)  # type: ignore[arg-type]


async def _converse(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        reply = server.respond(dns.message.from_wire(query))
        if reply is not None:
            wire = _wire(reply, 65_535)
            writer.write(len(wire).to_bytes(2, "big") + wire)
            await writer.drain()
    writer.close()


def _wire(reply: dns.message.Message | bytes, size: int) -> bytes:
    return reply if isinstance(reply, bytes) else reply.to_wire(max_size=size, prefer_truncation=True)
