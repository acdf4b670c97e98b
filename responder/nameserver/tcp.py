"""
TCP: any number of queries on a connection, each with its length in front (RFC 7766), and bounds on what clients hold.
"""

from __future__ import annotations

import asyncio
import fcntl
import resource
import socket
import struct
import termios
from collections import OrderedDict, deque
from collections.abc import Callable

from responder.addresses import client_of
from responder.dns.exchange import ELSEWHERE
from responder.dns.wire import Transport
from responder.nameserver.udp import PassOn, Respond

BATCH = 32
"""Queries waiting in TCP connections, all of them together, that are answered per turn of the event loop: 0.3 ms."""

RECEIVE = 16 << 10
"""Octets read from a TCP connection at a time. A connection holds these and an incomplete message, 64 KiB at most."""

FIRST_MESSAGE = 3.0
"""Seconds a new connection may take to send a whole query, and any connection to finish one it began."""

IDLE = 10.0
"""Seconds a connection may stay without a query (RFC 7766, section 6.2.3; Knot's choice)."""

MAX_CONNECTIONS = 1000
"""TCP connections in total. If there are more, the one that is idle for longest is closed."""

MAX_CONNECTIONS_PER_CLIENT = 50
"""TCP connections of one client (`client_of`), with the same rule. Resolvers need a few."""

BACKLOG = 256
"""Connections that the kernel completes for us in advance. asyncio accepts as many in one go, room or not."""

MAX_UNSENT = 256 << 10
"""Octets of replies that a client has not read, at which its connection is closed."""

LOOK = 0.01
"""Seconds between looks whether connections are closed."""

_RESET = struct.pack("ii", 1, 0)


async def listen(respond: Respond, pass_on: PassOn, sock: socket.socket, connections: Connections) -> asyncio.Server:
    """Take connections on *sock* and answer what comes by *respond* or *pass_on*, which never raise."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: TCPConnection(respond, pass_on, connections), sock=sock, backlog=BACKLOG)


def most_connections() -> int:
    """As many as are wanted, or as the limit on descriptors leaves room for."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, max(8, descriptors - 2 * BACKLOG))


class Connections:
    """All TCP connections of the process: who has how many, which is idle for longest, whose queries wait."""

    def __init__(self) -> None:
        self._most = most_connections()
        self.received = bytearray(RECEIVE)  # what was just read from one of them
        self._by_idleness: OrderedDict[TCPConnection, None] = OrderedDict()  # the first is idle for longest
        self._by_client: dict[str, OrderedDict[TCPConnection, None]] = {}  # likewise
        self._waiting: deque[TCPConnection] = deque()
        self.is_draining = False  # whether no query is waited for any more that was not begun

    def admit(self, connection: TCPConnection) -> None:
        """Take *connection* in. The one idle for longest may have to go: of all, or of its client if that has many."""
        siblings = self._by_client.get(connection.client, ())
        if len(siblings) >= MAX_CONNECTIONS_PER_CLIENT:
            self._evict(next(iter(siblings)))
        elif len(self._by_idleness) >= self._most:
            self._evict(next(iter(self._by_idleness)))
        self._by_idleness[connection] = None
        self._by_client.setdefault(connection.client, OrderedDict())[connection] = None

    def touch(self, connection: TCPConnection) -> None:
        """Note that *connection* just had a query."""
        self._by_idleness.move_to_end(connection)
        self._by_client[connection.client].move_to_end(connection)

    def forget(self, connection: TCPConnection) -> None:
        """Note that *connection* is gone."""
        if connection in self._by_idleness:
            del self._by_idleness[connection]
            del self._by_client[connection.client][connection]
            if not self._by_client[connection.client]:
                del self._by_client[connection.client]

    def enqueue(self, connection: TCPConnection) -> None:
        """Have *connection* answer its queries one by one, in turn with others, and let UDP and the feed in between."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._take_turns)
        self._waiting.append(connection)

    async def drain(self, seconds: float) -> None:
        """Close each one once its next query is answered, and wait for that for *seconds* at most."""
        self.is_draining = True
        now = asyncio.get_running_loop().time
        until = now() + seconds
        await asyncio.sleep(LOOK)  # for those that were just accepted
        while self._by_idleness and now() < until:  # noqa: ASYNC110  # it is over soon, and happens once
            await asyncio.sleep(LOOK)
        for connection in [*self._by_idleness]:
            connection.hang_up()

    def close(self) -> None:
        """End them all."""
        for connection in [*self._by_idleness]:
            self._evict(connection)

    def _take_turns(self) -> None:
        for _ in range(BATCH):
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

    def __init__(self, respond: Respond, pass_on: PassOn, connections: Connections) -> None:
        self.address = self.client = ""
        self._respond = respond
        self._pass_on = pass_on
        self._connections = connections
        self._buffer = bytearray()
        self._elsewhere = 0  # its packets that are answered elsewhere
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # what create_server makes
        self._transport = transport
        self.address = (transport.get_extra_info("peername") or ("",))[0]
        self.client = client_of(self.address)
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        self._connections.admit(self)
        self._expect(FIRST_MESSAGE)

    def get_buffer(self, sizehint: int) -> bytearray:
        """The buffer for the next octets."""
        return self._connections.received

    def buffer_updated(self, nbytes: int) -> None:
        unfinished = bool(self._buffer)
        self._buffer += memoryview(self._connections.received)[:nbytes]
        if not self._end():
            if not unfinished:  # a drop of octets does not buy a slow client more time
                self._expect(FIRST_MESSAGE)
        elif self.answer():
            self._wait_for_turn()

    def answer(self) -> bool:
        """Answer the query that the buffer begins with. Returns whether there is another one behind it."""
        if self._transport is None or self._transport.is_closing():
            return False
        end = self._end()
        packet = bytes(self._buffer[2:end])
        reply = self._respond(packet, Transport.TCP, self.address)
        del self._buffer[:end]
        if reply is None:
            self.abort()  # not a query: a client that sends this over TCP is disconnected
            return False
        self._connections.touch(self)
        if reply is ELSEWHERE:  # the queries behind it are answered meanwhile (RFC 7766, section 6.2.1.1)
            self._elsewhere += 1
            self._pass_on(packet, Transport.TCP, self.address, self._deliver)
        else:
            self._send(reply)
        if self._end():
            return True
        if self._buffer:
            self._expect(FIRST_MESSAGE)
        elif self._connections.is_draining and not self._elsewhere:
            self._transport.close()
            return False
        else:
            self._wait(IDLE, self.hang_up)
        self._transport.resume_reading()
        return False

    def pause_writing(self) -> None:
        """The client does not read its replies, and too many of them are waiting."""
        self.abort()

    def eof_received(self) -> bool:
        """A client may close its sending side and still read (RFC 7766, section 6.2.4): let the rest be sent."""
        self._ended = True
        return self._elsewhere > 0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connections.forget(self)

    def abort(self) -> None:
        """Close at once, and have the kernel forget what is unsent: it would keep that for minutes."""
        if self._transport is not None:
            if not self._transport.is_closing():
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def _send(self, reply: bytes) -> None:
        assert self._transport is not None  # noqa: S101
        self._transport.write(len(reply).to_bytes(2, "big") + reply)  # in one piece (RFC 7766, section 8)

    def _deliver(self, reply: bytes) -> None:
        """Send a *reply* that took its time, if the connection is still there."""
        self._elsewhere -= 1
        if self._transport is None or self._transport.is_closing():
            return
        self._send(reply)
        if self._ended and not self._elsewhere:
            self._transport.close()

    def _wait_for_turn(self) -> None:
        """Read nothing more from the client, and stop its timer: this process is busy."""
        assert self._transport is not None and self._timer is not None  # noqa: S101, PT018
        self._transport.pause_reading()
        self._timer.cancel()
        self._connections.enqueue(self)

    def _end(self) -> int:
        """Where the first query in the buffer ends; 0 if the query is incomplete."""
        end = 2 + int.from_bytes(self._buffer[:2], "big")
        return end if len(self._buffer) >= end else 0

    def _expect(self, seconds: float) -> None:
        """Give the client *seconds* for the rest of its query."""
        self._wait(seconds, self.abort)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def hang_up(self) -> None:
        """Close an idle connection: not by a reset, which is an error to the client, unless it has answers unread."""
        assert self._transport is not None  # noqa: S101
        unsent = fcntl.ioctl(self._transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ, tcp(7)
        if any(unsent) or self._transport.get_write_buffer_size():
            self.abort()
        else:
            self._transport.close()
