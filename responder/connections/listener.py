"""
A listening socket: connections are accepted, get a place, and do the handshake of TLS if there is one.

The servers of asyncio accept any number of connections, and report a TLS connection only after its handshake. Here, a
connection counts from the moment that it is accepted.
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
from responder.connections.proxyprotocol import MalformedHeader, receive_header

BACKLOG = 1024
"""Connections that may wait to be accepted. All sockets of the service have this number."""

ACCEPTED_AT_ONCE = 64
"""Connections that are accepted in one turn of the event loop, so that a flood of them leaves time for other work."""

PAUSE = 1.0
"""Seconds until connections are accepted again, after the system had no resources for another one."""

FAREWELL_DEADLINE = 2.0
"""Seconds in which a TLS client must answer a close_notify before the connection is closed."""

TLS_BUFFER = 16 << 10
"""Octets that TLS reads at a time: the length of a record (RFC 8446, section 5.1). asyncio keeps a buffer of this size
for each connection, also during its handshake. With its default of 256 KiB, a thousand handshakes would need 250 MB."""

_RESET = struct.pack("ii", 1, 0)

SSLProtocol.max_size = TLS_BUFFER  # there is no other way to set it


class Listener:
    """
    Accepts connections on *sock* until it is stopped, over TLS if *tls* is a context.

    *serve* makes the protocol of a connection that has got one of *places*, from that and the address of its client. A
    handshake may take *deadline* seconds. With *is_proxy*, which recognizes proxies, only those and the machine itself
    may connect, and a connection of a proxy has to begin with a header of the PROXY protocol.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        places: Places,
        serve: Callable[[Place, str], asyncio.Protocol],
        closings: Closings,
        *,
        deadline: float,
        is_proxy: Callable[[str], bool] | None = None,
    ) -> None:
        self._socket = sock
        self._tls = tls
        self._places = places
        self._serve = serve
        self._closings = closings
        self._deadline = deadline
        self._is_proxy = is_proxy
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._socket.setblocking(False)
        self._socket.listen(BACKLOG)
        self._loop.add_reader(self._socket, self._accept)

    @property
    def is_connecting(self) -> bool:
        """Whether a connection was accepted that is not with its protocol yet."""
        return bool(self._connecting)

    def pause(self) -> None:
        """Accept nothing more, and leave clients in the queue of the socket: another process has that, too."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)

    async def stop(self) -> None:
        """Accept nothing more, give up handshakes, and close the socket, so that no client waits in its queue."""
        self.pause()
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
            self._admit(connection, peer[0])

    def _rest(self, fault: OSError) -> None:
        """Wait before accepting again. The socket stays readable, so without this the process would be busy."""
        self._closings.report_exhausted(fault)
        self._loop.remove_reader(self._socket)
        self._pause = self._loop.call_later(PAUSE, self._loop.add_reader, self._socket, self._accept)

    def _admit(self, connection: socket.socket, peer: str) -> None:
        is_proxy = self._is_proxy is not None and self._is_proxy(peer)
        if self._is_proxy is not None and not is_proxy and connection.getsockname()[0] != peer:
            self._closings.note(Reason.NOT_A_PROXY, peer)
            connection.close()
        elif (place := self._seat(connection, peer, share=not is_proxy)) is not None:
            connecting = (
                self._introduce(connection, place, peer) if is_proxy else self._connect(connection, place, peer)
            )
            task = self._loop.create_task(connecting)
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _seat(self, connection: socket.socket, address: str, *, share: bool = True) -> Place | None:
        """A place for *connection*, which is closed if there is none."""
        place, crowd = self._places.take(client_of(address), lambda: _hang_up(connection), share=share)
        if crowd is not None:
            self._closings.note(Reason.REFUSED if place is None else Reason.EVICTED, crowd.client, crowd.connections)
        if place is None:
            connection.close()
        return place

    async def _introduce(self, connection: socket.socket, waiting: Place, proxy: str) -> None:
        """Read from *proxy* for which client it connects, and connect *connection* with a place of that client."""
        try:
            address = await receive_header(connection, proxy)
        except (MalformedHeader, OSError) as fault:
            connection.close()
            if waiting.leave():
                malformed = isinstance(fault, MalformedHeader)
                self._closings.note(Reason.HEADER if malformed else Reason.HANDSHAKE, proxy)
        except BaseException:
            connection.close()
            waiting.leave()
            raise
        else:
            if waiting.leave() and (place := self._seat(connection, address)) is not None:
                await self._connect(connection, place, address)

    async def _connect(self, connection: socket.socket, place: Place, address: str) -> None:
        """Connect *connection* to its protocol, after the handshake if there is one."""
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._serve(place, address),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._deadline if self._tls else None,
                ssl_shutdown_timeout=FAREWELL_DEADLINE if self._tls else None,
            )
        except OSError:
            if place.leave():  # otherwise it was closed to make room, which is counted
                self._closings.note(Reason.HANDSHAKE, place.client)
        except BaseException:
            place.leave()
            raise


def _hang_up(connection: socket.socket) -> None:
    """Shut *connection* down while a handshake reads from it."""
    with suppress(OSError):  # it is gone already
        connection.shutdown(socket.SHUT_RDWR)


def drop_unread(connection: socket.socket) -> None:
    """Have the kernel drop unread octets when *connection* closes. Otherwise it keeps them for minutes."""
    with suppress(OSError):  # it is gone already
        if any(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))):  # SIOCOUTQ, tcp(7)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
