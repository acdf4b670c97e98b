"""
A listening socket: connections are accepted, find a place, and shake hands if TLS is spoken.

asyncio's own servers report a TLS connection only when its handshake is done, and accept without asking whether there
is room. Here, a connection counts from the moment it is accepted.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import struct
import termios
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from contextlib import suppress

from responder.addresses import client_of
from responder.connections.closings import Closings, Reason
from responder.connections.places import Place, Places

BACKLOG = 1024
"""Connections that may wait to be accepted, as on all sockets of the service."""

ACCEPTED_AT_ONCE = 64
"""Connections accepted in one turn of the event loop, so that a flood of them leaves time for others."""

PAUSE = 1.0
"""Seconds without accepting anything after the system had no resources for another connection."""

FAREWELL_DEADLINE = 2.0
"""Seconds that a TLS client gets for its half of the goodbye (close_notify) before the connection is cut."""

TLS_BUFFER = 16 << 10
"""Octets that TLS reads at a time, as much as a record has (RFC 8446, section 5.1). asyncio keeps a buffer of that size
for each connection, from before its handshake on: with its own 256 KiB, a thousand handshakes would fill 250 MB."""

_RESET = struct.pack("ii", 1, 0)

SSLProtocol.max_size = TLS_BUFFER  # there is no other way to set it


class Listener:
    """
    Takes connections on *sock*, over TLS if there is a context for it, until it is stopped.

    *serve* makes the protocol of a connection that has a place among *places*. A handshake may take *deadline* seconds.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        places: Places,
        serve: Callable[[Place], asyncio.Protocol],
        closings: Closings,
        *,
        deadline: float,
    ) -> None:
        self._socket = sock
        self._tls = tls
        self._places = places
        self._serve = serve
        self._closings = closings
        self._deadline = deadline
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._socket.setblocking(False)
        self._socket.listen(BACKLOG)
        self._loop.add_reader(self._socket, self._accept)

    async def stop(self) -> None:
        """Accept nothing more, give up handshakes, and close the socket, so that no client waits in its queue."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as fault:
                self._rest(fault)
                return
            self._admit(connection, client_of(peer[0]))

    def _rest(self, fault: OSError) -> None:
        """The socket stays readable: asked again at once, it would keep the process busy."""
        self._closings.report_exhausted(fault)
        self._loop.remove_reader(self._socket)
        self._pause = self._loop.call_later(PAUSE, self._loop.add_reader, self._socket, self._accept)

    def _admit(self, connection: socket.socket, client: str) -> None:
        place, crowd = self._places.take(client, lambda: _hang_up(connection))
        if crowd is not None:
            self._closings.note(Reason.REFUSED if place is None else Reason.EVICTED, crowd.client, crowd.connections)
        if place is None:
            connection.close()
            return
        task = self._loop.create_task(self._connect(connection, place))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket, place: Place) -> None:
        """Hand *connection* over to its protocol, after the handshake if there is one."""
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._serve(place),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._deadline if self._tls else None,
                ssl_shutdown_timeout=FAREWELL_DEADLINE if self._tls else None,
            )
        except OSError:
            if place.leave():  # it was not closed to make room, which is counted already
                self._closings.note(Reason.HANDSHAKE, place.client)
        except BaseException:
            place.leave()
            raise


def _hang_up(connection: socket.socket) -> None:
    """End *connection* under the handshake that reads it."""
    with suppress(OSError):  # it is gone already
        connection.shutdown(socket.SHUT_RDWR)


def drop_unread(connection: socket.socket) -> None:
    """Have the kernel drop what a client has not read when *connection* closes: it would keep that for minutes."""
    with suppress(OSError):  # it is gone already
        if any(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))):  # SIOCOUTQ, tcp(7)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
