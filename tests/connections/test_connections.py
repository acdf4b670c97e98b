"""Listeners on real sockets: who finds room, who has to go, and what is answered to what is not spoken here."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from aiohttp import web

from responder import metrics
from responder.api import build_runner
from responder.api.tls import ServerTls
from responder.connections import Runner, connection, listener, runner
from responder.metrics import REGISTRY
from tests.support.keypairs import key_pair
from tests.support.processes import PATIENCE, eventually

ADDRESSES = [f"127.0.0.{number}" for number in range(2, 6)]
"""Of four clients. The whole of 127/8 is this machine."""

LARGE = 4 << 20
"""Octets of an answer that no kernel takes as a whole while its client does not read."""

REQUEST = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n"

TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE


@dataclass
class Server:
    """A listener, and whatever happens there."""

    runner: Runner
    port: int
    tls: bool
    logs: list[Any]
    stack: ExitStack
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    asked: int = 0

    async def small(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(text="ok")

    async def client_address(self, request: web.Request) -> web.Response:
        return web.Response(text=request.remote)

    async def large(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(body=bytes(LARGE))

    async def gated(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self.gate.wait()
        return web.Response(text="ok")

    async def body(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(body=await request.read())

    def connect(self, address: str = "127.0.0.1") -> socket.socket:
        """A connection from *address*, without a handshake, that takes little before it is read."""
        sock = self.stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((address, 0))
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self.port))
        return sock

    async def send(self, sock: socket.socket, octets: bytes) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, octets), PATIENCE)

    async def read(self, sock: socket.socket) -> bytes:
        """All that comes until the end; nothing if that is a reset."""
        octets = b""
        try:
            while more := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), PATIENCE):
                octets += more
        except ConnectionError:
            return b""
        return octets

    async def client(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from *address*, after the handshake if there is one, that takes little before it is read."""
        to, come_from, tls = ("127.0.0.1", self.port), (address, 0), TRUSTING if self.tls else None
        reader, writer = await asyncio.open_connection(*to, ssl=tls, local_addr=come_from, limit=1024)
        self.clients.append((reader, writer))
        return reader, writer

    async def get(self, path: str = "/small", address: str = "127.0.0.1") -> bytes:
        """The status line of the answer to a request on a connection of its own; nothing if it is refused."""
        try:
            reader, writer = await self.client(address)
            writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
            return await asyncio.wait_for(reader.readline(), PATIENCE)
        except OSError:
            return b""

    async def crowd(self, octets: bytes) -> None:
        """As many connections as there may be, of four clients, that send *octets* and do nothing more."""
        for address in ADDRESSES:
            for _ in range(runner.MAX_CONNECTIONS // len(ADDRESSES)):
                if octets:
                    _, writer = await self.client(address)
                    writer.write(octets)
                else:
                    self.connect(address)

    def closed(self, reason: str) -> float:
        """How many connections were closed for *reason*, by the metrics."""
        labels = {"listener": "tested", "reason": reason}
        return REGISTRY.get_sample_value("responder_http_connections_closed_total", labels) or 0.0

    def reports(self, text: str) -> list[Any]:
        return [line for line in self.logs if text in line["event"]]


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
async def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A listener with room for forty connections, four of one client."""
    async with serving(monkeypatch, tls=request.param) as served:
        yield served


@pytest.fixture
async def plain(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """As `server`, for what TLS makes no difference to."""
    async with serving(monkeypatch, tls=False) as served:
        yield served


@asynccontextmanager
async def serving(
    monkeypatch: pytest.MonkeyPatch, *, tls: bool, is_proxy: Callable[[str], bool] | None = None
) -> AsyncIterator[Server]:
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", 40)
    metrics.CONNECTIONS_CLOSED.clear()
    tested = build_runner(web.Application(), name="tested", drain=0.1)
    with structlog.testing.capture_logs() as logs, ExitStack() as stack:
        sock = socket.create_server(("127.0.0.1", 0))
        served = Server(tested, sock.getsockname()[1], tls, logs, stack)
        tested.app.router.add_get("/small", served.small)
        tested.app.router.add_get("/client", served.client_address)
        tested.app.router.add_get("/large", served.large)
        tested.app.router.add_get("/gated", served.gated)
        tested.app.router.add_post("/body", served.body)
        await tested.setup()
        context = ServerTls(key_pair("api.example.com")).context if tls else None
        await tested.listen(sock, context, is_proxy=is_proxy)
        yield served
        served.gate.set()
        for _, writer in served.clients:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for _, writer in served.clients), return_exceptions=True)
        await tested.cleanup()
    await eventually(lambda: not len(tested.places), "all connections are gone")


# Room for another client


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"GET /small HTTP/1.1\r\nHost:",
        REQUEST,
        b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 40,
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
    ],
    ids=["nothing", "half a request", "kept alive", "unread answers", "half a body"],
)
async def test_a_crowd_does_not_keep_others_out(server: Server, octets: bytes) -> None:
    """Four clients that hold all they can and wait do not keep a fifth from being served; it is counted and logged."""
    await server.crowd(octets)
    await eventually(lambda: len(server.runner.places) == 16, "each of them has its share")
    for number in range(6, 16):
        assert b"HTTP/1.1 200 OK\r\n" == await server.get(address=f"127.0.0.{number}")
    assert server.closed("evicted") >= 24
    (report,) = server.reports("closed to make room")
    assert ("tested", "127.0.0.2", 4) == (report["listener"], report["client"], report["connections"])


async def test_a_full_listener(server: Server) -> None:
    """With every place taken, a client with few connections finds one, and those with the most give one up."""
    crowd = [server.connect(f"127.0.0.{10 + number // 4}") for number in range(40)]
    await eventually(lambda: len(server.runner.places) == 40, "all places are taken")
    assert 40 == REGISTRY.get_sample_value("responder_http_connections", {"listener": "tested"})
    assert b"HTTP/1.1 200 OK\r\n" == await server.get(address="127.0.0.2")
    assert b"" == await server.read(crowd[0])
    assert 1 == server.closed("evicted")


async def test_requests_at_work_are_not_ended(server: Server) -> None:
    """A connection whose request is being answered gets its answer, however many others come; those are refused."""
    asking = [asyncio.create_task(server.get("/gated")) for _ in range(4)]
    await eventually(lambda: server.asked == 4, "all are being answered")
    assert b"" == await server.get()
    assert b"HTTP/1.1 200 OK\r\n" == await server.get(address="127.0.0.2")
    server.gate.set()
    assert [b"HTTP/1.1 200 OK\r\n"] * 4 == await asyncio.gather(*asking)
    assert 1 == server.closed("refused")
    (report,) = server.reports("a connection was refused")
    assert ("127.0.0.1", 4) == (report["client"], report["connections"])


async def test_a_late_body_is_nothing_at_work(plain: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a body that comes after its answer does not make its connection one that is never closed."""
    monkeypatch.setattr(connection, "LINGER", PATIENCE)
    late = plain.connect()
    await plain.send(late, b"POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    await asyncio.get_running_loop().sock_recv(late, 4096)
    await plain.send(late, b" more")
    await asyncio.gather(*(plain.get() for _ in range(8)))
    for _ in range(4):
        plain.connect()
    assert b"" == await plain.read(late)


# Time


async def test_answers_are_read_in_time(plain: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read a response is cut off, and takes up neither more requests nor memory until then."""
    monkeypatch.setattr(connection, "READ_DEADLINE", 0.05)
    unread = plain.connect()
    await plain.send(unread, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    await eventually(lambda: plain.asked and not len(plain.runner.places), "it is cut off")
    assert plain.asked == 1
    assert 1 == plain.closed("unread")
    assert 1 == len(plain.reports("does not read the response"))


async def test_pipelined_answers_are_not_piled_up(server: Server) -> None:
    """While an answer waits for its client to read, the next request is left alone; a few are held."""
    reader, writer = await server.client()
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    await eventually(lambda: server.asked, "the first is answered")
    for _ in range(100):
        await asyncio.sleep(0)
    assert server.asked <= 3
    octets = 0
    while octets < 20 * LARGE:
        octets += len(await asyncio.wait_for(reader.read(1 << 20), PATIENCE))
    assert server.asked == 20


async def test_stopping_waits_for_no_reader(plain: Server) -> None:
    """A client that does not read, and pipelines, does not hold up the end of the service."""
    await plain.crowd(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    await eventually(lambda: plain.asked >= 16, "they are being answered")
    asked = plain.asked
    await plain.runner.cleanup()
    assert 0 == len(plain.runner.places)
    assert plain.asked - asked <= 16


async def test_unfinished_handshakes(plain: Server) -> None:
    """They are counted when their time is over, once each; what scanners do all day is not in the log."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await plain.runner.listen(sock, ServerTls(key_pair("api.example.com")).context, deadline=0.05)
        with socket.create_connection(sock.getsockname()) as silent:
            silent.setblocking(False)
            assert b"" == await plain.read(silent)
    await eventually(lambda: plain.closed("handshake") == 1, "it is counted")
    assert [] == plain.logs


async def test_no_descriptors(plain: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has no resources for another connection is asked again in a while; that is logged."""
    monkeypatch.setattr(listener, "PAUSE", 0.01)
    accept, faults = socket.socket.accept, [OSError(errno.EMFILE, os.strerror(errno.EMFILE)) for _ in range(3)]

    def failing(self: socket.socket) -> Any:
        if faults:
            raise faults.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", failing)
    assert b"HTTP/1.1 200 OK\r\n" == await plain.get()
    (report,) = plain.reports("cannot accept connections")
    assert "Too many open files" == report["reason"]


# What is not spoken


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"GET /small HTTP/0.9\r\n\r\n", b"505 HTTP Version Not Supported"),
        (b"GET /small\r\n\r\n", b"505 HTTP Version Not Supported"),
        (b"GET /small HTTP/2.0\r\nHost: x\r\n\r\n", b"505 HTTP Version Not Supported"),
        (
            b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"501 Not Implemented",
        ),
        (b"POST /body HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400 Bad Request"),
    ],
    ids=["0.9", "a simple request", "2.0", "gzip, chunked", "chunked in HTTP/1.0"],
)
async def test_refused_framing(plain: Server, octets: bytes, expected: bytes) -> None:
    """Other versions and codings are refused in HTTP/1.1 by a problem document, and the connection ends with that."""
    sock = plain.connect()
    await plain.send(sock, octets)
    head, _, document = (await plain.read(sock)).partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    assert expected == status.partition(b" ")[2]
    assert status.startswith(b"HTTP/1.")
    assert b"Content-Type: application/problem+json; charset=utf-8" in headers
    assert b"Server: responder" in headers
    assert b'"type": "urn:responder:problem:' in document
    assert 1 == document.count(b"}")
    assert 0 == plain.asked


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
async def test_chunks_are_spoken(plain: Server, coding: bytes) -> None:
    """A body in chunks is read, however the coding is spelled."""
    sock = plain.connect()
    await plain.send(sock, b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + coding)
    await plain.send(sock, b"\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    answer = await plain.read(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\nhello")
