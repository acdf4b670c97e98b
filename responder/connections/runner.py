"""
Running an aiohttp application on sockets, with limits on the number of connections and on how long each may wait.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import cast

from aiohttp import web

from responder import metrics
from responder.connections.closings import Closings
from responder.connections.connection import Connection, Fallback
from responder.connections.listener import Listener
from responder.connections.places import Place, Places

HANDSHAKE_DEADLINE = 10.0
"""Seconds for a TLS handshake."""

MAX_CONNECTIONS = 1000
"""Connections of one runner, including those that are in their handshake."""

RESERVED_DESCRIPTORS = 256
"""File descriptors that are kept for the rest of the process and for the listeners."""


LOOK = 0.01
"""Seconds between looks whether connections are closed."""


def most_connections() -> int:
    """`MAX_CONNECTIONS`, or fewer if the limit on descriptors is low. There may be two runners."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, max(8, (descriptors - RESERVED_DESCRIPTORS) // 2))


class Runner(web.AppRunner):
    """
    An aiohttp runner with limits on its connections. *fallback* has the responses to octets that are not a request.

    *name* is for the metrics and the log. A connection may wait *keepalive* seconds for its next request. When the
    runner is stopped, requests under way get *drain* seconds to finish.
    """

    def __init__(self, app: web.Application, fallback: Fallback, *, name: str, keepalive: float, drain: float) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=drain)
        self.places = Places(most_connections)
        self._fallback = fallback
        self._keepalive = keepalive
        self._closings = Closings(name)
        self._listeners: list[Listener] = []
        self._is_retiring = False
        metrics.CONNECTIONS.labels(name).set_function(lambda: len(self.places))

    async def listen(
        self,
        sock: socket.socket,
        tls: ssl.SSLContext | None = None,
        *,
        deadline: float = HANDSHAKE_DEADLINE,
        is_proxy: Callable[[str], bool] | None = None,
    ) -> None:
        """
        Serve on *sock* until `cleanup`, over TLS if *tls* is a context.

        A handshake may take *deadline* seconds. With *is_proxy*, the PROXY protocol is spoken (see `Listener`).
        """
        listener = Listener(sock, tls, self.places, self._serve, self._closings, deadline=deadline, is_proxy=is_proxy)
        self._listeners.append(listener)
        listener.start()

    async def retire(self, seconds: float) -> None:
        """
        Have another process take new connections: each one of now is closed with its next response.

        For *seconds* at most, clients that keep their connections idle may ask once more. Then nothing more is
        accepted, and what was accepted last gets half of that time for its request. Call `cleanup` afterwards.
        """
        self._is_retiring = True
        old = self._connections()
        for connection in old:
            connection.close_after_response()
        await self._closed(lambda: [each for each in old if each.transport is not None], seconds)
        for listener in self._listeners:
            listener.pause()
        await self._closed(
            lambda: [
                *(each for each in self._connections() if each not in old),
                *(1 for listener in self._listeners if listener.is_connecting),
            ],
            seconds / 2,
        )

    async def _closed(self, still_open: Callable[[], Sequence[object]], seconds: float) -> None:
        """Wait until none are open, for *seconds* at most."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        await asyncio.sleep(LOOK)
        while still_open() and now() < until:  # noqa: ASYNC110  # it is over soon, and happens once
            await asyncio.sleep(LOOK)

    def close_when_idle(self) -> None:
        """Close every connection after its request is finished."""
        for connection in self._connections():
            connection.close_when_idle()

    async def cleanup(self) -> None:
        """Accept no more connections, wait for requests under way, and close everything."""
        while self._listeners:
            await self._listeners.pop().stop()
        for connection in self._connections():
            connection.wait_no_more()
        await super().cleanup()

    def _connections(self) -> list[Connection]:
        return [] if self.server is None else cast(list[Connection], self.server.connections)

    def _serve(self, place: Place, address: str) -> Connection:
        assert self.server is not None  # noqa: S101  # it was set up
        connection = Connection(
            self.server,
            place,
            address,
            self._fallback,
            self._closings,
            keepalive_timeout=self._keepalive,
            access_log=None,
            auto_decompress=False,  # no client compresses a hundred octets, and a bomb would cost us
        )
        if self._is_retiring:
            connection.close_after_response()
        return connection
