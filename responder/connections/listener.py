"""
A listening socket whose TLS handshakes are bounded.

asyncio tells of a TLS connection only when its handshake is done. Whoever never finishes one has to be counted as well,
so for so long it is the sockets that are counted, from when they are accepted.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from responder.addresses import client_of

BACKLOG = 1024
"""Connections that may wait to be accepted, as on all sockets of the service; aiohttp would make it 128."""

MAX_HANDSHAKES = 1000
"""Handshakes under way at one listener. Each takes some milliseconds."""

MAX_HANDSHAKES_PER_CLIENT = 250
"""Of one client (`client_of`): a proxy in front is a single address for everybody behind it."""

FAREWELL_DEADLINE = 2.0
"""Seconds that a TLS client gets for its half of the goodbye (close_notify) before the connection is cut."""

TLS_BUFFER = 16 << 10
"""Octets that TLS reads at a time, as much as a record has (RFC 8446, section 5.1). asyncio keeps a buffer of that size
for each connection, from before its handshake on: with its own 256 KiB, strangers could fill 500 MB."""

Peer = tuple[Any, ...]
"""Where a connection comes from: an address, a port, and what else IPv6 has."""


SSLProtocol.max_size = TLS_BUFFER  # there is no other way to say it


class Site(web.BaseSite):
    """
    Serves a runner's application on one socket, over TLS if it is given a context; a handshake may take *deadline*
    seconds. When the site is stopped the socket is closed, so that nobody waits in its queue.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        handshakes: Handshakes,
        *,
        deadline: float,
    ) -> None:
        super().__init__(runner, ssl_context=tls, backlog=BACKLOG)
        self._socket = sock
        self._listener = _Listener(sock, handshakes if tls is not None else None)
        self._deadline = deadline

    @property
    def name(self) -> str:
        return str(self._listener.getsockname())

    async def start(self) -> None:
        await super().start()
        server, tls = self._runner.server, self._ssl_context
        assert server is not None  # noqa: S101  # BaseSite refuses a runner without
        self._server = await asyncio.get_running_loop().create_server(
            server,
            sock=self._listener,
            ssl=tls,
            backlog=self._backlog,
            ssl_handshake_timeout=self._deadline if tls else None,
            ssl_shutdown_timeout=FAREWELL_DEADLINE if tls else None,
        )

    async def stop(self) -> None:
        await super().stop()
        self._socket.close()  # asyncio has closed its duplicate


class Handshakes:
    """Those that are under way, in all and of each client."""

    def __init__(self) -> None:
        self._peers: set[Peer] = set()
        self._by_client: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._peers)

    def begin(self, peer: Peer) -> bool:
        """Count one more, if there is room."""
        client = client_of(peer[0])
        if len(self._peers) >= MAX_HANDSHAKES or self._by_client[client] >= MAX_HANDSHAKES_PER_CLIENT:
            return False
        self._peers.add(peer)
        self._by_client[client] += 1
        return True

    def end(self, peer: Peer) -> None:
        """It is done, or its connection is gone; both may be told."""
        if peer in self._peers:
            self._peers.remove(peer)
            client = client_of(peer[0])
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


class _Listener(socket.socket):
    """Accepts nobody whose handshake would be one too many."""

    def __init__(self, sock: socket.socket, handshakes: Handshakes | None) -> None:
        super().__init__(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
        self._handshakes = handshakes

    def accept(self) -> tuple[socket.socket, Any]:
        connection, peer = super().accept()
        handshakes = self._handshakes
        if handshakes is None:
            return connection, peer
        if not handshakes.begin(peer):
            connection.close()
            raise ConnectionAbortedError  # the event loop goes on with the next one
        return _Connected(connection, lambda: handshakes.end(peer)), peer


class _Connected(socket.socket):
    """An accepted socket that says when it is closed."""

    def __init__(self, connection: socket.socket, closed: Callable[[], None]) -> None:
        super().__init__(connection.family, connection.type, connection.proto, fileno=connection.detach())
        self._tell = closed

    def close(self) -> None:
        super().close()
        self._tell()
