"""
A nameserver process: packets from its sockets through `exchange.respond` and back, and zones from the feed.

It faces the internet, so it is given sockets and the path of the feed, and has nothing else: no database, no tokens,
no configuration, no environment. Between a packet and its answer nothing is awaited.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
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

TCP_BATCH = 32
"""Queries waiting in TCP connections, all of them together, that are answered per turn of the event loop: 0.3 ms."""

TCP_RECEIVE = 16 << 10
"""Octets read from a TCP connection at a time. With a message begun, 64 KiB at most, it is all that one can occupy."""

TCP_FIRST_MESSAGE = 3.0
"""Seconds a new connection may take to send a whole query, and any connection to finish one it began."""

TCP_IDLE = 10.0
"""Seconds a connection may stay without a query (RFC 7766, section 6.2.3; Knot's choice)."""

MAX_CONNECTIONS = 1000
"""TCP connections in all; the one idle for longest makes room for a new one."""

MAX_CONNECTIONS_PER_ADDRESS = 50
"""TCP connections of one client address, likewise. Resolvers need a handful."""

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
    """All TCP connections of the process: who has how many, which is idle for longest, whose queries wait."""

    def __init__(self) -> None:
        self.received = bytearray(TCP_RECEIVE)  # what was just read from one of them
        self._by_idleness: OrderedDict[TCPConnection, None] = OrderedDict()  # the first is idle for longest
        self._by_address: dict[str, OrderedDict[TCPConnection, None]] = {}  # likewise
        self._waiting: deque[TCPConnection] = deque()

    def admit(self, connection: TCPConnection) -> None:
        """Take *connection* in. The one idle for longest may have to go: of all, or of its address if that has many."""
        siblings = self._by_address.get(connection.address, ())
        if len(siblings) >= MAX_CONNECTIONS_PER_ADDRESS:
            self._evict(next(iter(siblings)))
        elif len(self._by_idleness) >= MAX_CONNECTIONS:
            self._evict(next(iter(self._by_idleness)))
        self._by_idleness[connection] = None
        self._by_address.setdefault(connection.address, OrderedDict())[connection] = None

    def touch(self, connection: TCPConnection) -> None:
        """Note that *connection* just had a query."""
        self._by_idleness.move_to_end(connection)
        self._by_address[connection.address].move_to_end(connection)

    def forget(self, connection: TCPConnection) -> None:
        """Note that *connection* is gone."""
        if connection in self._by_idleness:
            del self._by_idleness[connection]
            del self._by_address[connection.address][connection]
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def enqueue(self, connection: TCPConnection) -> None:
        """Have *connection* answer its queries one by one, in turn with others, and let UDP and the feed in between."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._take_turns)
        self._waiting.append(connection)

    def close(self) -> None:
        """End them all."""
        for connection in [*self._by_idleness]:
            self._evict(connection)

    def _take_turns(self) -> None:
        for _ in range(TCP_BATCH):
            connection = self._waiting.popleft()
            if connection.answer():
                self._waiting.append(connection)
            elif not self._waiting:
                return
        asyncio.get_running_loop().call_soon(self._take_turns)

    def _evict(self, connection: TCPConnection) -> None:
        self.forget(connection)  # at once: the next to come in needs another one to go
        connection.abort()


class TCPConnection(asyncio.BufferedProtocol):
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
        self._connections.admit(self)
        self._expect(TCP_FIRST_MESSAGE)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where to put what comes next."""
        return self._connections.received

    def buffer_updated(self, nbytes: int) -> None:
        unfinished = bool(self._buffer)
        self._buffer += memoryview(self._connections.received)[:nbytes]
        if not self._end():
            if not unfinished:  # a drop of octets does not buy a slow client more time
                self._expect(TCP_FIRST_MESSAGE)
        elif self.answer():
            self._wait_for_turn()

    def answer(self) -> bool:
        """Answer the query that the buffer begins with. Returns whether there is another one behind it."""
        if self._transport is None or self._transport.is_closing():
            return False
        end = self._end()
        reply = self._server.reply(bytes(self._buffer[2:end]), Transport.TCP, self.address)
        del self._buffer[:end]
        if reply is None:
            self.abort()  # garbage or a response: whoever sends those over TCP gets no second chance
            return False
        self._connections.touch(self)
        self._transport.write(len(reply).to_bytes(2, "big") + reply)  # in one piece (RFC 7766, section 8)
        if self._end():
            return True
        self._expect(TCP_FIRST_MESSAGE if self._buffer else TCP_IDLE)
        self._transport.resume_reading()
        return False

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

    def _wait_for_turn(self) -> None:
        """Take nothing more from the client, and no time either: it is we who are busy."""
        assert self._transport is not None and self._timer is not None  # noqa: S101, PT018
        self._transport.pause_reading()
        self._timer.cancel()
        self._connections.enqueue(self)

    def _end(self) -> int:
        """Where in the buffer its first query ends; 0 if that is not all there."""
        end = 2 + int.from_bytes(self._buffer[:2], "big")
        return end if len(self._buffer) >= end else 0

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
    server, loaded = Nameserver(), asyncio.Event()

    def install(zones: Zones) -> None:
        server.install(zones)
        loaded.set()

    following = asyncio.create_task(follow(feed, install))
    stopping = asyncio.create_task(stop.wait())
    loading = asyncio.create_task(loaded.wait())
    await asyncio.wait([following, stopping, loading], return_when=asyncio.FIRST_COMPLETED)
    if loaded.is_set():  # if not, there is nothing to answer from, not even REFUSED
        await _answer(server, udp, tcp, ready, [following, stopping])
    for task in (following, stopping, loading):
        task.cancel()
    if following.done() and not following.cancelled():
        following.result()  # it runs for ever: that it ended is a fault, and the traceback belongs in the log


async def _answer(
    server: Nameserver,
    udp: list[socket.socket],
    tcp: list[socket.socket],
    ready: Callable[[], None],
    tasks: Iterable[asyncio.Task[Any]],
) -> None:
    """Answer until one of *tasks* is done."""
    loop, connections = asyncio.get_running_loop(), Connections()
    for sock in udp:
        loop.add_reader(sock, drain, server, sock)
    listeners = [await loop.create_server(lambda: TCPConnection(server, connections), sock=sock) for sock in tcp]
    ready()
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for sock in udp:
        loop.remove_reader(sock)
    for listener in listeners:
        listener.close()
    connections.close()


async def main(orders: dict[str, Any], lifeline: Lifeline, stop: asyncio.Event) -> None:
    """The process: *orders* name its sockets (inherited, by number) and the feed's path."""
    sockets = {
        purpose: [socket.socket(fileno=number) for number in numbers] for purpose, numbers in orders["sockets"].items()
    }
    await serve(sockets["udp"], sockets["tcp"], orders["feed"], stop, lifeline.ready)


if __name__ == "__main__":
    run(main)
