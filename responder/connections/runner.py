"""
The connections of an HTTP listener: how many there may be, how long they may dally, what is said to what is no request.

aiohttp bounds none of this by itself, and answers malformed HTTP with its parser's own words.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections import Counter
from typing import Any, Protocol, cast

from aiohttp import web

from responder.addresses import client_of
from responder.connections.listener import Handshakes, Site

HANDSHAKE_DEADLINE = 10.0
"""Seconds for a TLS handshake."""

HEAD_DEADLINE = 10.0
"""Seconds that a new connection has until its first request is there, head and all."""

MAX_CONNECTIONS = 1000
"""Connections of one listener."""

MAX_CONNECTIONS_PER_CLIENT = 250
"""Connections of one client (`client_of`): many, as a proxy in front is a single address for all who are behind it."""

RESERVED_DESCRIPTORS = 256
"""File descriptors kept for whatever else the process does, and for the listeners themselves."""

LINGER = 1.0
"""Seconds for the rest of a body that nobody wants, so that its sender gets to read why (RFC 9112, section 9.6)."""


class Answers(Protocol):
    """What a listener answers to what its application never sees, and where its answers are noted."""

    def malformed(self) -> web.Response:
        """The answer to what is not HTTP."""

    def internal(self, fault: BaseException | None) -> web.Response:
        """The answer when *fault* is ours."""

    def for_http(self, error: web.HTTPException) -> web.Response:
        """The answer for one of aiohttp's own."""

    def note(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Log what was answered."""


class Runner(web.AppRunner):
    """
    As aiohttp's own, but *answers* also speak to what never becomes a request of the application.

    A connection may stay *keepalive* seconds without another request; requests under way get *drain* seconds to finish
    when the runner is stopped.
    """

    def __init__(self, app: web.Application, answers: Answers, *, keepalive: float, drain: float) -> None:
        self._answers = answers
        super().__init__(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=drain,
            lingering_time=LINGER,
            keepalive_timeout=keepalive,
            auto_decompress=False,  # no client compresses a hundred octets, and a bomb would cost us
        )

    async def listen(
        self, sock: socket.socket, tls: ssl.SSLContext | None = None, *, deadline: float = HANDSHAKE_DEADLINE
    ) -> None:
        """
        Serve on *sock* until the runner is cleaned up, over TLS if there is a context for it.

        A handshake may take *deadline* seconds, and as much as a connection is counted until it is done.
        """
        handshakes = cast(_Server, self.server).handshakes
        await Site(self, sock, tls, handshakes, deadline=deadline).start()

    def close_when_idle(self) -> None:
        """Let every connection finish what it is at, and then close it."""
        for connection in cast(_Server, self.server).connections:
            cast(_Connection, connection).close_when_idle()

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no other way to choose the class of its connections
        cast(_Server, server).clients = _Clients()
        cast(_Server, server).handshakes = Handshakes()
        cast(_Server, server).answers = self._answers
        return server


class _Server(web.Server):
    clients: _Clients
    handshakes: Handshakes
    answers: Answers

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self.clients, self.handshakes, self.answers, loop=self._loop, **self._kwargs)


class _Clients:
    """How many connections a listener has, in all and of each client."""

    def __init__(self) -> None:
        self.total = 0
        self.by_client: Counter[str] = Counter()

    def admit(self, client: str) -> bool:
        """Count one more, if there is room: what the rest of the process needs stays free."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(MAX_CONNECTIONS, max(8, (descriptors - RESERVED_DESCRIPTORS) // 2))  # there may be two listeners
        if self.total >= most or self.by_client[client] >= MAX_CONNECTIONS_PER_CLIENT:
            return False
        self.total += 1
        self.by_client[client] += 1
        return True

    def forget(self, client: str) -> None:
        self.total -= 1
        self.by_client[client] -= 1
        if not self.by_client[client]:
            del self.by_client[client]


class _Connection(web.RequestHandler):
    """A client's connection: one of so many, and with so much time until its first request is there."""

    __slots__ = ("_answers", "_client", "_clients", "_deadline", "_handshakes", "_is_busy")

    def __init__(
        self, manager: _Server, clients: _Clients, handshakes: Handshakes, answers: Answers, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._clients = clients
        self._handshakes = handshakes
        self._answers = answers
        self._client: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._handshakes.end(transport.get_extra_info("peername"))
        if transport.get_extra_info("peercert"):
            return  # whoever proved itself by a certificate finds room, and may open connections for later, as Go does
        client = client_of((transport.get_extra_info("peername") or ("",))[0])
        if not self._clients.admit(client):
            self.force_close()
            return
        self._client = client
        self._deadline = asyncio.get_running_loop().call_later(HEAD_DEADLINE, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._has_begun()
        if self._client is not None:
            self._clients.forget(self._client)
            self._client = None

    async def _handle_request(self, *request: Any) -> tuple[web.StreamResponse, bool]:
        self._has_begun()
        self._is_busy = True
        try:
            return await super()._handle_request(*request)
        finally:
            self._is_busy = False

    def close_when_idle(self) -> None:
        """aiohttp's own `close` leaves an idle connection open, with nobody who reads from it."""
        if self._is_busy:
            self.close()
        else:
            self.force_close()

    def _has_begun(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp's own puts *message* into the answer and the log; it quotes the request, and so perhaps a token."""
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer cannot become another")
        response = self._answers.malformed() if status == 400 else self._answers.internal(exc)
        self._answers.note(request, response)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """An expectation is refused before any middleware is asked (RFC 9110, section 10.1.1)."""
        if isinstance(resp, web.HTTPException):
            resp = self._answers.for_http(resp)
            self._answers.note(request, resp)
        resp.headers["Server"] = "responder"  # without the versions that aiohttp would tell
        return await super().finish_response(request, resp, start_time)
