"""
A nameserver process: packets from its sockets through `exchange.respond` and back, and zones from the feed.

It faces the internet, so it is given sockets and the path of the feed, and has nothing else: no database, no tokens,
no configuration, no environment. Between a packet and its answer nothing is awaited.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from responder.child import Lifeline, run
from responder.exchange import Exchange
from responder.feed import follow
from responder.wire import Transport
from responder.zone import Zones

MAX_UDP_QUERY = 4096
"""Octets read of a datagram. A real query with every option known fits into a tenth of it."""

UDP_BATCH = 64
"""Datagrams answered per readiness event, before the event loop may look at TCP and the feed: about 0.5 ms."""

TCP_FIRST_MESSAGE = 3.0
"""Seconds a new connection may take to send a whole query, and any connection to finish one it began."""

TCP_IDLE = 10.0
"""Seconds a connection may stay without a query (RFC 7766, section 6.2.3; Knot's choice)."""

MAX_CONNECTIONS = 1000
"""TCP connections in all; the one idle for longest makes room for a new one."""

MAX_CONNECTIONS_PER_ADDRESS = 50
"""TCP connections of one client address. Resolvers need a handful."""

MAX_UNSENT = 256 << 10
"""Octets of replies waiting for a client that does not read them; at this many it is cut off."""

_log = structlog.get_logger("nameserver")


@dataclass(slots=True)
class Nameserver:
    """The exchange that answers, and the edge that keeps its faults from costing more than one packet."""

    exchange: Exchange = field(default_factory=Exchange)

    def install(self, zones: Zones) -> None:
        """Serve *zones* from the next packet on."""
        self.exchange.zones = zones
        # The tables live as long as the process: keep the collector from walking a million names every now and then.
        gc.freeze()

    def reply(self, packet: bytes, transport: Transport, client: str) -> bytes | None:
        """Never raises: a packet that brings out a fault of ours costs its own answer and nothing more."""
        try:
            return self.exchange.respond(packet, transport, client)
        except Exception:  # noqa: BLE001  # the edge of a packet
            _log.exception("a packet brought out a fault", packet=packet[:512].hex())
            return None


def drain(server: Nameserver, udp: socket.socket) -> None:
    """Answer what waits at *udp*, at most a batch: one callback for many packets, instead of one for each."""
    receive, send, reply, transport = udp.recvfrom, udp.sendto, server.reply, Transport.UDP
    for _ in range(UDP_BATCH):
        try:
            packet, client = receive(MAX_UDP_QUERY + 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # an ICMP error that an earlier reply came back with; the next datagram is waiting
            continue
        answer = reply(packet, transport, client[0])
        if answer is not None and client[1] != 0 and len(packet) <= MAX_UDP_QUERY:
            try:
                send(answer, client)
            except OSError:  # no buffer, no route: the resolver asks again
                continue


class Connections:
    """All TCP connections of the process: who has how many, and which of them is idle for longest."""

    def __init__(self) -> None:
        self._by_idleness: dict[TCPConnection, None] = {}  # the first is idle for longest
        self._per_address: Counter[str] = Counter()

    def admit(self, connection: TCPConnection) -> bool:
        """Take *connection* in, if its address has not too many already; the longest idle one may have to go."""
        if self._per_address[connection.address] >= MAX_CONNECTIONS_PER_ADDRESS:
            return False
        if len(self._by_idleness) >= MAX_CONNECTIONS:
            next(iter(self._by_idleness)).abort()
        self._per_address[connection.address] += 1
        self._by_idleness[connection] = None
        return True

    def touch(self, connection: TCPConnection) -> None:
        """Note that *connection* just had a query."""
        del self._by_idleness[connection]
        self._by_idleness[connection] = None

    def forget(self, connection: TCPConnection) -> None:
        """Note that *connection* is gone."""
        if connection in self._by_idleness:
            del self._by_idleness[connection]
            self._per_address[connection.address] -= 1
            if not self._per_address[connection.address]:
                del self._per_address[connection.address]


class TCPConnection(asyncio.Protocol):
    """One client over TCP: any number of queries, each with its length in front (RFC 7766)."""

    def __init__(self, server: Nameserver, connections: Connections) -> None:
        self.address = ""
        self._server = server
        self._connections = connections
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # what create_server makes
        self._transport = transport
        self.address = (transport.get_extra_info("peername") or ("",))[0]
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        if self._connections.admit(self):
            self._expect(TCP_FIRST_MESSAGE)
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        buffer, unfinished = self._buffer, bool(self._buffer)
        buffer += data
        answered = 0
        while len(buffer) >= 2:
            end = 2 + int.from_bytes(buffer[:2], "big")
            if len(buffer) < end:
                break
            reply = self._server.reply(bytes(buffer[2:end]), Transport.TCP, self.address)
            del buffer[:end]
            answered += 1
            if reply is None or self._transport is None or self._transport.is_closing():
                self.abort()  # garbage or a response: whoever sends those over TCP gets no second chance
                return
            self._transport.write(len(reply).to_bytes(2, "big") + reply)  # in one piece (RFC 7766, section 8)
        if answered:
            self._connections.touch(self)
        if answered or (buffer and not unfinished):  # a drop of octets does not buy a slow client more time
            self._expect(TCP_FIRST_MESSAGE if buffer else TCP_IDLE)

    def pause_writing(self) -> None:
        """The client does not read its answers: more than enough of them wait already."""
        self.abort()

    def eof_received(self) -> bool:
        """A client may close its sending side and still read (RFC 7766, section 6.2.4): let the rest be sent."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connections.forget(self)

    def abort(self) -> None:
        """Close at once, without waiting for what is unsent."""
        if self._transport is not None:
            self._transport.abort()

    def _expect(self, seconds: float) -> None:
        """Give the client that long for its next whole query."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)


async def serve(
    udp: list[socket.socket],
    tcp: list[socket.socket],
    feed: str,
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """
    Answer on *udp* and *tcp* (bound, listening, non-blocking) until *stop* is set; call *ready* when that begins.

    Nothing is read from the sockets before the first snapshot is here: what comes in until then waits in the kernel.
    """
    loop = asyncio.get_running_loop()
    server, loaded = Nameserver(), asyncio.Event()

    def install(zones: Zones) -> None:
        server.install(zones)
        loaded.set()

    following = asyncio.create_task(follow(feed, install))
    stopping = asyncio.create_task(stop.wait())
    loading = asyncio.create_task(loaded.wait())
    await asyncio.wait([following, stopping, loading], return_when=asyncio.FIRST_COMPLETED)
    for sock in udp:
        loop.add_reader(sock, drain, server, sock)
    connections = Connections()
    listeners = [await loop.create_server(lambda: TCPConnection(server, connections), sock=sock) for sock in tcp]
    ready()
    await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
    for sock in udp:
        loop.remove_reader(sock)
    for listener in listeners:
        listener.close()
    for task in (following, loading):
        task.cancel()
    if following.done() and not following.cancelled():
        following.result()  # it runs for ever: that it ended is a fault, and the traceback belongs in the log


async def main(orders: dict[str, Any], lifeline: Lifeline, stop: asyncio.Event) -> None:
    """The process: *orders* name its sockets (inherited, by number) and the feed's path."""
    sockets = {
        purpose: [socket.socket(fileno=number) for number in numbers] for purpose, numbers in orders["sockets"].items()
    }
    await serve(sockets["udp"], sockets["tcp"], orders["feed"], stop, lifeline.ready)


if __name__ == "__main__":
    run(main)
